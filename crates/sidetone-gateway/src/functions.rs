//! What a bot can have done in the middle of a call: a transfer, and what an HTTP service of the operator's does.

use std::{sync::Arc, time::Duration};

use http::Uri;
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use sidetone_bot::{ToolResult, Tools};
use sidetone_websocket::tls::TlsError;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    action::Action,
    call::RunningCall,
    event::GatewayEvent,
    hooks::SigningKey,
    http_client::{HttpClient, Trust, http_client, signed_post},
    registry::Registry,
    with_sources,
};

/// How long the service may take.
const WITHIN: Duration = Duration::from_secs(8);
/// The longest answer of the service, in bytes.
const LONGEST_ANSWER: usize = 64 << 10;

/// The service that carries out the functions of a route's bot.
#[derive(Debug)]
pub(crate) struct FunctionService {
    url: Uri,
    key: Option<SigningKey>,
    client: HttpClient,
}

impl FunctionService {
    /// # Errors
    ///
    /// TLS can't be set up.
    pub(crate) fn new(url: Uri, key: Option<SigningKey>) -> Result<Self, TlsError> {
        let client = http_client(&url, &mut Trust::default())?;
        Ok(Self { url, key, client })
    }

    /// Posts a call of a function, signed as hooks are. The body of the answer is what the function returns.
    async fn call(&self, call: Value) -> Result<String, String> {
        let id = format!("msg_{}", Uuid::new_v4().simple());
        let request = signed_post(&self.url, self.key.as_ref(), &id, &call.to_string());
        let request = request.map_err(|error| error.to_string())?;
        let answered = async {
            let response = self.client.request(request).await;
            let response = response.map_err(|error| with_sources(&error))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), LONGEST_ANSWER);
            let body = body.collect().await.map_err(|error| error.to_string())?;
            match status.is_success() {
                true => Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned()),
                false => Err(format!("status {}", status.as_u16())),
            }
        };
        match timeout(WITHIN, answered).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {WITHIN:?}")),
        }
    }
}

/// The functions of one call.
pub(crate) struct CallFunctions {
    pub(crate) running: Arc<RunningCall>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) service: Option<Arc<FunctionService>>,
}

impl Tools for CallFunctions {
    fn call(&self, name: &str, arguments: &str) -> ToolResult {
        if name == "transfer" {
            let transferred = self.transfer(arguments);
            return Box::pin(std::future::ready(transferred));
        }
        let Some(service) = self.service.clone() else {
            return Box::pin(std::future::ready(Err("there are no functions".into())));
        };
        let context = &self.running.context;
        let call = json!({
            "call": context.id,
            "route": context.route,
            "params": *context.params,
            "function": name,
            // What is no JSON is passed on as it is.
            "arguments": serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments)),
        });
        let (running, registry, name) = (
            Arc::clone(&self.running),
            Arc::clone(&self.registry),
            name.to_owned(),
        );
        Box::pin(async move {
            let answer = service.call(call).await;
            if let Err(error) = &answer {
                let text = format!("the bot's function {name:.64} failed: {error}");
                let call = Arc::clone(&running.context);
                registry
                    .bus
                    .publish(GatewayEvent::CallNotice { call, text });
            }
            answer
        })
    }
}

impl CallFunctions {
    /// Sets the result by which the dialplan dials, if the route allows that.
    fn transfer(&self, arguments: &str) -> Result<String, String> {
        let arguments: Value =
            serde_json::from_str(arguments).map_err(|error| error.to_string())?;
        let to = arguments["to"]
            .as_str()
            .ok_or("say where, as in {\"to\": \"200\"}")?;
        let action: Action = format!("dial,{to}").parse()?;
        self.running.set_result(action)?;
        Ok("the caller is transferred when the call ends".into())
    }
}
