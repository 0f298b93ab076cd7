//! The public face: `GET /notes` and `POST /notes` with a text, handed on to `backend` after a check of their own.

use wstd::http::{Body, Client, Error, Method, Request, Response, StatusCode};

const LONGEST: usize = 200;

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let (head, mut body) = request.into_parts();
    println!("{} {}", head.method, head.uri.path());
    match (head.method, head.uri.path()) {
        (Method::GET, "/notes") => ask(Method::GET, Body::empty()).await,
        (Method::POST, "/notes") => {
            let text = body.str_contents().await?.trim().to_owned();
            if text.is_empty() || text.chars().count() > LONGEST {
                return plain(StatusCode::BAD_REQUEST, format!("a note has 1 to {LONGEST} characters\n"));
            }
            ask(Method::POST, text.into()).await
        }
        (Method::GET, "/") => plain(StatusCode::OK, "GET /notes lists them, POST /notes adds the body\n".to_owned()),
        _ => plain(StatusCode::NOT_FOUND, "no such page\n".to_owned()),
    }
}

async fn ask(method: Method, body: Body) -> Result<Response<Body>, Error> {
    let backend = std::env::var("BACKEND")?;
    let request = Request::builder().method(method).uri(format!("{backend}/notes")).body(body)?;
    match Client::new().send(request).await {
        Ok(answer) => {
            let (head, body) = answer.into_parts();
            Ok(Response::builder().status(head.status).body(body)?)
        }
        Err(error) => {
            eprintln!("backend: {error}");
            plain(StatusCode::BAD_GATEWAY, "the backend does not answer\n".to_owned())
        }
    }
}

fn plain(status: StatusCode, text: String) -> Result<Response<Body>, Error> {
    Ok(Response::builder().status(status).body(text.into())?)
}
