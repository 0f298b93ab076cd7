//! The `wasi:http` counterpart of `peer serve`: does what its path says.

use std::sync::atomic::{AtomicU32, Ordering};

use futures_lite::{StreamExt, stream};
use wstd::http::{Body, Client, Error, Request, Response, StatusCode};

/// A test writes another version over this one in the compiled file.
static VERSION: &str = "version 000";

/// Lives as long as the guest's instance.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let text = match words.as_slice() {
        ["say", text] => (*text).to_owned(),
        ["version"] => std::hint::black_box(VERSION).to_owned(),
        ["slow", millis, text] => {
            let millis = millis.parse().unwrap_or_default();
            wstd::task::sleep(wstd::time::Duration::from_millis(millis)).await;
            (*text).to_owned()
        }
        ["env", name] => std::env::var(name).unwrap_or_else(|_| "unset".to_owned()),
        ["header", name] => {
            let value = request.headers().get(*name).and_then(|value| value.to_str().ok());
            value.unwrap_or("none").to_owned()
        }
        ["read", rest @ ..] => match std::fs::read_to_string(format!("/{}", rest.join("/"))) {
            Ok(text) => text,
            Err(error) => {
                return Ok(Response::builder().status(StatusCode::NOT_FOUND).body(error.to_string().into())?);
            }
        },
        ["host"] => request.uri().authority().map(ToString::to_string).unwrap_or_default(),
        ["log", text] => {
            println!("{text}");
            "logged".to_owned()
        }
        ["requests"] => (REQUESTS.fetch_add(1, Ordering::Relaxed) + 1).to_string(),
        ["trap"] => panic!("asked to"),
        ["half"] => {
            let parts = stream::iter([true, false]).map(|first| if first { "half" } else { panic!("asked to") });
            return Ok(Response::new(Body::from_stream(parts)));
        }
        ["spin"] => loop {
            std::hint::spin_loop();
        },
        ["get", host, port, rest @ ..] => {
            let address = format!("http://{host}:{port}/{}", rest.join("/"));
            match Client::new().send(Request::get(address).body(Body::empty())?).await {
                Ok(answer) => return Ok(Response::builder().status(answer.status()).body(answer.into_body())?),
                Err(error) => {
                    return Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(error.to_string().into())?);
                }
            }
        }
        ["fetch", scheme, host, port, rest @ ..] => {
            return fetch(format!("{scheme}://{host}:{port}/{}", rest.join("/"))).await;
        }
        _ => return Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such deed".into())?),
    };
    Ok(Response::new(text.into()))
}

/// Asks an address and follows redirects, as clients do: `wasi:http` leaves that to the guest.
async fn fetch(mut address: String) -> Result<Response<Body>, Error> {
    let client = Client::new();
    for _ in 0..5 {
        let answer = match client.send(Request::get(&address).body(Body::empty())?).await {
            Ok(answer) => answer,
            Err(error) => {
                let text = format!("{address}: {error:?}");
                return Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(text.into())?);
            }
        };
        match answer.headers().get("location").and_then(|location| location.to_str().ok()) {
            Some(location) if answer.status().is_redirection() => address = location.to_owned(),
            _ => return Ok(Response::builder().status(answer.status()).body(answer.into_body())?),
        }
    }
    Ok(Response::builder().status(StatusCode::LOOP_DETECTED).body(Body::empty())?)
}
