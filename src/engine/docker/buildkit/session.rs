//! A BuildKit session: while a build runs, the engine asks over a connection of its own for the build's secrets and for
//! credentials of registries. The engine is the client, we are the gRPC server; nothing else is answered.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::task::JoinSet;

use super::pipe::Pipe;
use super::wire;
use crate::image::credentials;

/// Secrets by id.
pub(super) type Secrets = BTreeMap<String, Vec<u8>>;

const HEALTH: &str = "/grpc.health.v1.Health/Check";
const SECRET: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";
const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
/// gRPC's words for what there is not, and for what is not done.
const NOT_FOUND: &str = "5";
const UNIMPLEMENTED: &str = "12";
/// Longest question: a name.
const LONGEST: usize = 64 * 1024;

/// An open session; dropped, it ends.
pub(super) struct Session {
    id: String,
    _tasks: JoinSet<()>,
}

impl Session {
    /// Opens one beside a build that is about to be asked for.
    pub(super) async fn open(address: &str, version: &str, secrets: Secrets) -> io::Result<Self> {
        let id = id();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v{version}/session"))
            .header("host", "engine")
            .header("connection", "Upgrade")
            .header("upgrade", "h2c")
            .header("x-docker-expose-session-uuid", &id)
            .header("x-docker-expose-session-name", "wcompose");
        for method in [HEALTH, SECRET, CREDENTIALS] {
            request = request.header("x-docker-expose-session-grpc-method", method);
        }
        let body = http_body_util::Empty::new().map_err(|never| match never {}).boxed_unsync();
        let mut pipe = Pipe::connect(address).await?;
        let answer = pipe.send(request.body(body).map_err(io::Error::other)?).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(io::Error::other(format!("the engine opens no session for a build ({})", answer.status())));
        }
        let stream = hyper::upgrade::on(answer).await.map_err(io::Error::other)?;
        let mut tasks = pipe.into_task();
        let secrets = Arc::new(secrets);
        tasks.spawn(async move {
            let Ok(mut connection) = h2::server::handshake(TokioIo::new(stream)).await else { return };
            let mut calls = JoinSet::new();
            while let Some(Ok((request, respond))) = connection.accept().await {
                while calls.try_join_next().is_some() {}
                calls.spawn(answer_call(request, respond, secrets.clone()));
            }
        });
        Ok(Self { id, _tasks: tasks })
    }

    /// What the build names it by.
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

/// Answers one call; one that breaks off is its caller's matter.
async fn answer_call(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, secrets: Arc<Secrets>) {
    let path = request.uri().path().to_owned();
    let Some(message) = message(request.into_body()).await else { return };
    let answer = match path.as_str() {
        // SERVING.
        HEALTH => Ok(vec![0x08, 0x01]),
        SECRET => match secrets.get(&wire::text(&message, 1)) {
            Some(secret) => {
                let mut answer = Vec::new();
                wire::put(&mut answer, 1, secret);
                Ok(answer)
            }
            None => Err(NOT_FOUND),
        },
        CREDENTIALS => Ok(credentials_for(wire::text(&message, 1)).await),
        _ => Err(UNIMPLEMENTED),
    };
    let response = Response::builder().header("content-type", "application/grpc").body(());
    let Ok(response) = response else { return };
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    let mut trailers = HeaderMap::new();
    let status = match answer {
        Ok(answer) => {
            let mut framed = BytesMut::new();
            framed.put_u8(0);
            framed.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
            framed.put_slice(&answer);
            if stream.send_data(framed.freeze(), false).is_err() {
                return;
            }
            "0"
        }
        Err(status) => status,
    };
    trailers.insert("grpc-status", http::HeaderValue::from_static(status));
    let _ = stream.send_trailers(trailers);
}

/// The message of a call, without its frame.
async fn message(mut body: RecvStream) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.ok()?;
        bytes.extend_from_slice(&chunk);
        body.flow_control().release_capacity(chunk.len()).ok()?;
        if bytes.len() > LONGEST {
            return None;
        }
    }
    Some(bytes.split_off(bytes.len().min(5)))
}

async fn credentials_for(host: String) -> Vec<u8> {
    let found = tokio::task::spawn_blocking(move || credentials::of_reference(&format!("{host}/x"))).await;
    let mut answer = Vec::new();
    if let Ok(Some(found)) = found {
        let secret = found.identity_token.or(found.password).unwrap_or_default();
        wire::put(&mut answer, 1, found.username.unwrap_or_default().as_bytes());
        wire::put(&mut answer, 2, secret.as_bytes());
    }
    answer
}

/// A name that no other session has.
fn id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};

    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let seed =
        format!("{}-{}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed), now.tv_sec, now.tv_nsec);
    super::super::connect::hex(&Sha256::digest(seed))[..25].to_owned()
}
