//! Answers that are no gRPC, from proxies and from servers that are something else: told as what they say.

use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tonic::{
    Code, Status,
    body::Body,
    codegen::Service,
    transport::{Channel, Error},
};

use crate::words;

/// So much of an answer is read to find out what it says, in bytes.
const READ: usize = 16 * 1024;

/// A channel that tells such an answer as a status of gRPC.
#[derive(Clone, Debug)]
pub(super) struct Plain(pub(super) Channel);

impl Service<Request<Body>> for Plain {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let asked = request.uri().clone();
        let answering = self.0.call(request);
        Box::pin(async move {
            let response = answering.await?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let is_grpc =
                content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
            // A status may come without a type.
            match is_grpc || response.headers().contains_key("grpc-status") {
                true => Ok(response),
                false => Ok(status(response, &asked).await.into_http()),
            }
        })
    }
}

async fn status(response: Response<Body>, asked: &http::Uri) -> Status {
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    // What can't be read says nothing. A stream is bounded in time by whoever waits for it.
    while read.len() < READ
        && let Some(Ok(frame)) = body.frame().await
    {
        read.extend(frame.into_data().unwrap_or_default());
    }
    let status = head.status.as_u16();
    let said = match words::of(&read, &[]) {
        said if said.is_empty() => said,
        said => format!(": {said}"),
    };
    let location = head.headers.get(header::LOCATION);
    let location = location.map(|it| String::from_utf8_lossy(it.as_bytes()));
    let text = match head.status.is_redirection() {
        true => words::moved(status, location.as_deref(), asked, &[]),
        false => format!("status {status}, and no gRPC: is the address right?{said}"),
    };
    let code = match head.status {
        it if it.is_redirection() => Code::FailedPrecondition,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => Code::Unimplemented,
        StatusCode::TOO_MANY_REQUESTS => Code::Unavailable,
        it if it.is_server_error() => Code::Unavailable,
        _ => Code::Unknown,
    };
    Status::new(code, text)
}
