//! What the dialplan is told after its call.

use std::time::Duration;

use serde_json::json;
use sidetone_caller::EndCause;
use uuid::Uuid;

use crate::kit::{OPEN, TestGateway};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(60);

const ROUTES: &str =
    "[route.echo]\necho = {}\n[route.sales]\necho = {}\nresult = \"dial,201\"\ndial = [\"_2XX\"]\n";

fn result(gateway: &TestGateway, id: Uuid) -> (u16, String) {
    let answer = gateway.get(&format!("/v1/calls/{id}/result"));
    (answer.status, answer.body)
}

#[test]
fn the_dialplan_is_told_what_its_route_says() {
    let gateway = TestGateway::start("", ROUTES);
    for (route, expected) in [("echo", "continue"), ("sales", "dial,201")] {
        let id = gateway.ticket(&format!("route={route}"));
        gateway.call(id, SHORT).join().unwrap();
        // At once: it waits for a call that is just ending.
        assert_eq!(result(&gateway, id), (200, expected.into()));
        assert_eq!(gateway.of("call.ended", id)["result"], expected);
    }
}

#[test]
fn a_result_can_be_set_while_the_call_runs_and_no_other_than_the_route_allows() {
    let gateway = TestGateway::start("", ROUTES);
    let id = gateway.ticket("route=sales");
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    let set = |result: &str| {
        let body = json!({"result": result});
        gateway
            .admin("PUT", &format!("/v1/calls/{id}/result"), Some(body))
            .status
    };
    for refused in [
        "dial,100",
        "dial,2001",
        "dial,",
        "set,${EXTEN}",
        "set,a b",
        "Dial,200",
        "hangup\n",
    ] {
        assert_eq!(set(refused), 400, "{refused}");
    }
    assert_eq!(set("dial,299"), 200);
    assert_eq!(set("set,SOLD_OUT"), 200);
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    assert_eq!(call.join().unwrap().ended.cause, EndCause::ServerHungUp);
    assert_eq!(result(&gateway, id), (200, "set,SOLD_OUT".into()));
}

#[test]
fn there_is_no_result_of_a_call_that_runs_or_never_was() {
    let gateway = TestGateway::start(OPEN, ROUTES);
    assert_eq!(result(&gateway, Uuid::new_v4()), (404, String::new()));
    assert_eq!(gateway.get("/v1/calls/nonsense/result").status, 404);
    let id = Uuid::new_v4();
    let call = gateway.call(id, LONG);
    gateway.wait_for_call(id);
    assert_eq!(result(&gateway, id), (409, String::new()));
    gateway.admin("POST", &format!("/v1/calls/{id}/hangup"), None);
    call.join().unwrap();
}

#[test]
fn a_token_reads_only_the_results_of_its_own_calls() {
    let tokens = "[[http.token]]\nname = \"pbx\"\nsecret = { file = \"pbx.key\" }\nmay = [\"tickets\"]\n\
                  [[http.token]]\nname = \"other\"\nsecret = { file = \"other.key\" }\nmay = [\"tickets\"]\n";
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("pbx.key"), "the-secret-of-the-pbx").unwrap();
    std::fs::write(folder.path().join("other.key"), "the-secret-of-others").unwrap();
    let gateway = TestGateway::start_in(folder, "", &format!("{tokens}{ROUTES}"));
    let get = |token: &str, path: &str| {
        let token = format!("Bearer {token}");
        gateway.request("GET", path, &[("authorization", &token)], None)
    };
    let ticket = get("the-secret-of-the-pbx", "/v1/tickets?route=echo");
    let id = ticket.body.split(',').next().unwrap().parse().unwrap();
    gateway.call(id, SHORT).join().unwrap();
    let path = format!("/v1/calls/{id}/result");
    assert_eq!(get("the-secret-of-the-pbx", &path).body, "continue");
    assert_eq!(get("the-secret-of-others", &path).status, 404);
    assert_eq!(gateway.admin("GET", &path, None).body, "continue");
    assert_eq!(gateway.get(&path).status, 401);
    assert_eq!(gateway.get("/v1/tickets?route=echo").status, 401);
}
