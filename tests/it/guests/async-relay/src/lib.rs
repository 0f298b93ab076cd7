//! `relay` for `wasi:http/handler@0.3`.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::cli::environment;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::wit_bindgen::spawn_local;
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Relay);

struct Relay;

/// Lives as long as the guest's instance.
static REQUESTS: AtomicU32 = AtomicU32::new(0);

impl wasip3::exports::http::handler::Guest for Relay {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        let words: Vec<&str> = path.split('/').skip(1).collect();
        Ok(match words.as_slice() {
            ["say", text] => respond(200, (*text).to_owned()),
            ["env", name] => {
                let found = environment::get_environment().into_iter().find(|(key, _)| key == name);
                respond(200, found.map_or_else(|| "unset".to_owned(), |(_, value)| value))
            }
            ["requests"] => respond(200, (REQUESTS.fetch_add(1, Ordering::Relaxed) + 1).to_string()),
            ["trap"] => panic!("asked to"),
            ["spin"] => loop {
                std::hint::spin_loop();
            },
            ["get", host, port, rest @ ..] => match get(format!("{host}:{port}"), format!("/{}", rest.join("/"))).await
            {
                Ok((status, text)) => respond(status, text),
                Err(error) => respond(502, format!("{error:?}")),
            },
            _ => respond(404, "no such deed".to_owned()),
        })
    }
}

/// The body is written after the response was returned.
fn respond(status: u16, text: String) -> Response {
    let (mut writer, reader) = wit_stream::new();
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (response, _) = Response::new(Fields::new(), Some(reader), trailers);
    response.set_status_code(status).expect("a status");
    spawn_local(async move {
        writer.write_all(text.into_bytes()).await;
    });
    response
}

async fn get(authority: String, path: String) -> Result<(u16, String), ErrorCode> {
    let (_, trailers) = wit_future::new(|| Ok(None));
    let (request, _) = Request::new(Fields::new(), None, trailers, None);
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(&authority)).expect("an authority");
    request.set_path_with_query(Some(&path)).expect("a path");
    let response = client::send(request).await?;
    let status = response.get_status_code();
    let (_, read) = wit_future::new(|| Ok(()));
    let (body, _) = Response::consume_body(response, read);
    Ok((status, String::from_utf8_lossy(&body.collect().await).into_owned()))
}
