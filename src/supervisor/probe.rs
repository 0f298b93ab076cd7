//! Makes one probe of a Wasm instance, through a connection that the composition root provides. What the answers mean is decided elsewhere.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::check::{Accept, Method, Probe};
use crate::model::InstanceName;
use crate::net::stack::{Conn, NetError};

/// Connects to a container port of an instance of this process.
pub type Dial = Arc<dyn Fn(InstanceName, u16) -> BoxFuture<'static, Result<Conn, NetError>> + Send + Sync>;

/// Asks once; the error is text for people. The caller bounds its time.
pub async fn ask(dial: &Dial, instance: &InstanceName, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Tcp { port } => {
            dial(instance.clone(), *port).await.map(drop).map_err(|error| format!("{probe}: {error}"))
        }
        Probe::Http { port, host, path, method, accept } => {
            let connection = dial(instance.clone(), *port).await.map_err(|error| format!("{probe}: {error}"))?;
            let method = match method {
                Method::Get => http::Method::GET,
                Method::Head => http::Method::HEAD,
            };
            let request = http::Request::builder()
                .method(method)
                .uri(path)
                .header(http::header::HOST, host)
                .header(http::header::USER_AGENT, concat!("wcompose-healthcheck/", env!("CARGO_PKG_VERSION")))
                .body(Empty::<Bytes>::new())
                .map_err(|error| format!("{probe}: {error}"))?;
            let status = exchange(connection, request).await.map_err(|error| format!("{probe}: {error}"))?;
            let passes = *accept == Accept::Any || status.as_u16() < 400;
            if passes { Ok(()) } else { Err(format!("{probe}: answered {status}")) }
        }
    }
}

/// Only the status is read; the connection ends with it.
async fn exchange(connection: Conn, request: http::Request<Empty<Bytes>>) -> hyper::Result<http::StatusCode> {
    let (mut sender, driver) = http1::handshake(TokioIo::new(connection.io)).await?;
    let mut response = std::pin::pin!(sender.send_request(request));
    let mut driver = std::pin::pin!(driver);
    tokio::select! {
        biased;
        response = &mut response => Ok(response?.status()),
        ended = &mut driver => {
            ended?;
            Ok(response.await?.status())
        }
    }
}
