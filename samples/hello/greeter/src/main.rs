//! Answers `GET /NAME` with a greeting.

use wstd::http::{Body, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".to_owned());
    let name = request.uri().path().trim_start_matches('/');
    println!("greeting {name}");
    Ok(Response::new(format!("{greeting}, {name}!\n").into()))
}
