//! What is wrong with a file, and how that is told.

use std::path::Path;

use sidetone_gateway::Config;

fn errors(text: &str) -> Vec<String> {
    match Config::parse(text, Path::new("sidetone.toml")) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn the_default_is_good() {
    assert!(Config::embedded().is_ok());
}

#[test]
fn the_examples_are_good() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("openai.key"), "sk-example").unwrap();
    for example in ["openai", "pipecat"] {
        let path = format!("../../examples/{example}/sidetone.toml");
        let text = std::fs::read_to_string(path).unwrap();
        let config = Config::parse(&text, &folder.path().join("sidetone.toml"));
        assert!(config.is_ok(), "{example}: {}", config.unwrap_err());
    }
}

#[test]
fn an_error_names_its_place_and_what_was_probably_meant() {
    let wrong = [
        (
            "[server]\nlisten = \"127.0.0.1:9092\"\nmax_cals = 3\n",
            "sidetone.toml:3:1: unknown key `max_cals`: did you mean `max_calls`?",
        ),
        (
            "[sever]\n",
            "sidetone.toml:1:2: unknown key `sever`: did you mean `server`?",
        ),
        (
            "[route.echo]\nechoo = {}\n",
            "sidetone.toml:2:1: unknown key `echoo`: did you mean `echo`?",
        ),
        (
            "[server]\nmax_duration = \"4 hours\"\n",
            "sidetone.toml:2:16: \"4 hours\" is not a time like \"30s\", \"5m\", \"4h\" or \"7d\"",
        ),
        (
            "[server]\ndefault_route = \"ecco\"\n[route.echo]\necho = {}\n",
            "sidetone.toml:2:17: there is no route \"ecco\": did you mean \"echo\"?",
        ),
        (
            "[route.a]\ntranscribe = \"local\"\n",
            "sidetone.toml:2:14: there is no transcriber \"local\", nor any other",
        ),
        (
            "[route.a]\nrecord = true\n",
            "sidetone.toml:2:10: say where recordings go: [recording] with dir = \"…\"",
        ),
        (
            "[route.a]\nmax_duration = \"3m\"\n",
            "sidetone.toml:1:1: say what the route does: play, echo, record, transcribe or bot",
        ),
        (
            "[route.a]\nbot = { dialect = \"twillio\", url = \"ws://127.0.0.1:1/\" }\n",
            "sidetone.toml:2:19: there is no dialect \"twillio\": did you mean \"twilio\"?",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\", url = \"http://127.0.0.1:1/\" }\n",
            "sidetone.toml:2:35: \"http://127.0.0.1:1/\" is not the address of a WebSocket: write ws://HOST:PORT or wss://HOST",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\", account_sid = \"AC1\" }\n",
            "sidetone.toml:2:70: an account's SID is AC and 32 hexadecimal digits",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\", ca_file = \"no-such-file.pem\" }\n",
            "sidetone.toml:2:66: ",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\", reconnect = 99 }\n",
            "sidetone.toml:2:68: give a number from 0 to 10",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\" }\n",
            "sidetone.toml:2:7: say where the bot is: url = \"ws://HOST:PORT/PATH\"",
        ),
        (
            "[route.a]\nbot = { dialect = \"openai\" }\n",
            "sidetone.toml:2:7: say what the bot is: openai = {",
        ),
        (
            "[route.a]\nbot = { dialect = \"vonage\", url = \"ws://127.0.0.1:1/\", openai = { key = { env = \"X\" }, model = \"m\" } }\n",
            "sidetone.toml:2:65: leave it out: it is only for the dialect openai",
        ),
        (
            "[route.a]\necho = {}\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\" }\n",
            "sidetone.toml:3:7: a route with a bot has no echo, play or transcribe",
        ),
        (
            "[route.a]\necho = {}\nwhen_bot_fails = { result = \"hangup\" }\n",
            "sidetone.toml:3:18: leave it out: this route has no bot",
        ),
        (
            "[route.a]\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\" }\nwhen_bot_fails = { result = \"dial,1\" }\n",
            "sidetone.toml:3:29: the route a does not allow to dial 1",
        ),
        (
            "[recording]\ndir = \"x\"\n[route.a]\nbot = { dialect = \"twilio\", url = \"ws://127.0.0.1:1/\" }\nsave_transcript = true\n",
            "sidetone.toml:5:19: nothing on this route turns what is said into words",
        ),
        (
            "[route.a]\ntranscribe = \"x\"\nsave_transcript = true\n",
            "sidetone.toml:3:19: say where recordings go",
        ),
        (
            "[route.a]\nplay = { file = \"no-such-file.wav\" }\n",
            "sidetone.toml:2:17: ",
        ),
        (
            "[route.a]\necho = {}\nresult = \"dial,200\"\n",
            "sidetone.toml:3:10: the route a does not allow to dial 200",
        ),
        (
            "[route.a]\necho = {}\ndial = [\"_.\"]\n",
            "sidetone.toml:3:9: \"_.\" is no pattern of extensions: it matches everything",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:9092\"\n",
            "sidetone.toml:2:10: 0.0.0.0:9092 can be reached from other machines",
        ),
        (
            "[server]\nlisten = \"0.0.0.0:9092\"\nallow = [\"any\"]\n[http]\n",
            "sidetone.toml:2:10: 0.0.0.0:9092 is no address that Asterisk can connect to: say what tickets name, as in advertise",
        ),
        (
            "[server]\nallow = [\"10.0.0.0/33\"]\n",
            "sidetone.toml:2:10: \"10.0.0.0/33\" is not a network",
        ),
        (
            "[[hook]]\nurl = \"https://user:secret@crm.example/\"\nevents = [\"call.ended\"]\n",
            "sidetone.toml:2:7: ",
        ),
        (
            "[[hook]]\nurl = \"https://crm.example/{call}\"\nevents = [\"call.ended\"]\n",
            "sidetone.toml:2:7: ",
        ),
        (
            "[[hook]]\nurl = \"https://crm.example/\"\nevents = [\"call.end\"]\n",
            "sidetone.toml:3:11: there is no event \"call.end\": did you mean \"call.ended\"?",
        ),
        (
            "[[http.token]]\nname = \"a\"\nsecret = \"hunter2hunter2hunter2\"\nmay = []\n",
            "sidetone.toml:3:10: ",
        ),
        (
            "[http]\n[[http.token]]\nname = \"a\"\nsecret = { env = \"NOT_SET_ANYWHERE\" }\nmay = [\"read\"]\n",
            "sidetone.toml:4:10: the environment variable NOT_SET_ANYWHERE is not set",
        ),
        ("[server\n", "sidetone.toml:1:8: "),
        (
            "[server]\nmax_calls = 0\n",
            "sidetone.toml:2:13: give a number of at least 1",
        ),
    ];
    for (text, expected) in wrong {
        let errors = errors(text);
        assert!(
            errors.iter().any(|error| error.starts_with(expected)),
            "{text}\n{errors:#?}"
        );
    }
}

#[test]
fn all_that_is_wrong_is_said_in_the_order_of_the_file() {
    let text =
        "[server]\nmax_calls = 0\ndefault_route = \"b\"\n[route.a]\necho = {}\nrecord = true\n";
    let errors = errors(text);
    let lines: Vec<&str> = errors
        .iter()
        .map(|it| it.split(':').nth(1).unwrap())
        .collect();
    assert_eq!(lines, ["2", "3", "6"], "{errors:#?}");
}

#[test]
fn a_secret_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.key"), "hunter2hunter2hunter2").unwrap();
    let text =
        "[http]\n[[http.token]]\nname = \"a\"\nsecret = { file = \"a.key\" }\nmay = [\"read\"]\n";
    let config = Config::parse(text, &folder.path().join("sidetone.toml")).unwrap();
    assert!(!format!("{config:?}").contains("hunter2"));
    std::fs::write(folder.path().join("a.key"), "hunter2").unwrap();
    let short = Config::parse(text, &folder.path().join("sidetone.toml")).unwrap_err();
    assert!(!short.to_string().contains("hunter2"), "{short}");
    assert!(short.to_string().contains("at least 16"), "{short}");
}
