//! Replies that are not gRPC, from proxies and from other servers: turned into a status that quotes
//! them.

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

use sidetone_websocket::service_message;

/// How much of such a reply is read, in bytes.
const MAX_BODY_LEN: usize = 16 * 1024;

/// A channel that turns replies other than gRPC into a gRPC status.
#[derive(Clone, Debug)]
pub(super) struct GrpcOnly(pub(super) Channel);

impl Service<Request<Body>> for GrpcOnly {
    type Response = Response<Body>;
    type Error = Error;
    type Future = BoxFuture<'static, Result<Self::Response, Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let uri = request.uri().clone();
        let response = self.0.call(request);
        Box::pin(async move {
            let response = response.await?;
            let content_type = response.headers().get(header::CONTENT_TYPE);
            let is_grpc =
                content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
            // A status may come without a content type.
            match is_grpc || response.headers().contains_key("grpc-status") {
                true => Ok(response),
                false => Ok(status(response, &uri).await.into_http()),
            }
        })
    }
}

async fn status(response: Response<Body>, uri: &http::Uri) -> Status {
    let (head, mut body) = response.into_parts();
    let mut read = Vec::new();
    // A body that can't be read is left out. The caller's timeout bounds a body that never ends.
    while read.len() < MAX_BODY_LEN
        && let Some(Ok(frame)) = body.frame().await
    {
        read.extend(frame.into_data().unwrap_or_default());
    }
    let status = head.status.as_u16();
    let message = match service_message::from_body(&read, &[]) {
        message if message.is_empty() => message,
        message => format!(": {message}"),
    };
    let location = head.headers.get(header::LOCATION);
    let location = location.map(|it| String::from_utf8_lossy(it.as_bytes()));
    let text = match head.status.is_redirection() {
        true => service_message::redirect(status, location.as_deref(), uri, &[]),
        false => format!("status {status}, not gRPC: is the address right?{message}"),
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
