//! The front door: a page for people at `/`, and `/api/…` handed on to the service `backend`.

use wstd::http::{Body, Client, Error, Method, Request, Response, StatusCode};

const PAGE: &str = include_str!("page.html");

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let path = request.uri().path().to_owned();
    println!("{} {path}", request.method());
    match (request.method(), path.as_str()) {
        (&Method::GET, "/") => {
            Ok(Response::builder().header("content-type", "text/html; charset=utf-8").body(PAGE.into())?)
        }
        (_, path) if path.starts_with("/api/") => hand_on(request.method().clone(), &path["/api".len()..]).await,
        _ => Ok(Response::builder().status(StatusCode::NOT_FOUND).body("no such page\n".into())?),
    }
}

/// Asks the Linux container by its service name, over ordinary HTTP.
async fn hand_on(method: Method, path: &str) -> Result<Response<Body>, Error> {
    let backend = std::env::var("BACKEND")?;
    let request = Request::builder().method(method).uri(format!("{backend}{path}")).body(Body::empty())?;
    match Client::new().send(request).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            Ok(Response::builder().status(head.status).header("content-type", "application/json").body(body)?)
        }
        Err(error) => {
            eprintln!("backend: {error}");
            Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(format!("backend: {error}\n").into())?)
        }
    }
}
