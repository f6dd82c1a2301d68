use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::{
    StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use googleapis_tonic_google_cloud_speech_v2::google::cloud::speech::v2::{
    StreamingRecognizeRequest, StreamingRecognizeResponse,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc::{self, UnboundedReceiver, UnboundedSender},
    time::sleep_until,
};
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, StreamingService},
    transport::Server,
};
use tonic_prost::ProstCodec;

use super::{
    BUFFER, State,
    client_io::ClientIo,
    session::{Reply, Session},
};

const METHOD: &str = "/google.cloud.speech.v2.Speech/StreamingRecognize";

pub(super) async fn serve(state: Arc<State>, connections: UnboundedReceiver<DuplexStream>) {
    let connections = stream::unfold(connections, |mut connections| async {
        let next = connections.recv().await?;
        Some((Ok::<_, io::Error>(next), connections))
    });
    let served = Server::builder().serve_with_incoming(Methods(state), connections);
    // It ends only with the server itself.
    let _ = served.await;
}

/// Makes in-memory connections.
pub(super) struct Connector {
    pub(super) state: Arc<State>,
    pub(super) incoming: UnboundedSender<DuplexStream>,
}

impl Service<http::Uri> for Connector {
    type Response = TokioIo<ClientIo>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (client, near) = duplex(BUFFER);
        let (far, server) = duplex(BUFFER);
        self.state.connect(near, far);
        let client = ClientIo::new(client, &self.state.frozen);
        let sent = self.incoming.send(server);
        ready(match sent {
            Ok(()) => Ok(TokioIo::new(client)),
            Err(_) => Err(io::ErrorKind::ConnectionRefused.into()),
        })
    }
}

#[derive(Clone)]
struct Methods(Arc<State>);

impl Service<http::Request<Body>> for Methods {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if let Some((status, location, text)) = self.0.rules.lock().http_reply {
            let mut response = http::Response::new(Body::new(text.to_owned()));
            *response.status_mut() = http::StatusCode::from_u16(status).unwrap_or_default();
            let location = http::HeaderValue::from_static(location);
            response.headers_mut().insert("location", location);
            return Box::pin(ready(Ok(response)));
        }
        let recognize = Recognize(Arc::clone(&self.0));
        Box::pin(async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("no such method here").into_http());
            }
            let codec = ProstCodec::default();
            Ok(Grpc::new(codec).streaming(recognize, request).await)
        })
    }
}

struct Recognize(Arc<State>);

impl StreamingService<StreamingRecognizeRequest> for Recognize {
    type Response = StreamingRecognizeResponse;
    type ResponseStream = BoxStream<'static, Result<StreamingRecognizeResponse, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<StreamingRecognizeRequest>>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move {
            let (replies, replies_rx) = mpsc::unbounded_channel();
            let session = Session::new(state, replies);
            tokio::spawn(session.run(request));
            let mut replies_rx = when_due(replies_rx).boxed();
            // The real service sends no headers before its first result.
            match replies_rx.next().await {
                Some(Ok(first)) => Ok(Response::new(
                    stream::iter([Ok(first)]).chain(replies_rx).boxed(),
                )),
                Some(Err(status)) => Err(status),
                None => Ok(Response::new(stream::empty().boxed())),
            }
        })
    }
}

fn when_due(
    replies_rx: UnboundedReceiver<Reply>,
) -> impl stream::Stream<Item = Result<StreamingRecognizeResponse, Status>> {
    stream::unfold(replies_rx, |mut replies_rx| async {
        let (due, reply) = replies_rx.recv().await?;
        sleep_until(due).await;
        Some((reply, replies_rx))
    })
}
