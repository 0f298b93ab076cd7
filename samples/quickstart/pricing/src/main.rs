//! The price list: `GET /ITEM` answers what one piece costs.

use wstd::http::{Body, Error, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let currency = std::env::var("CURRENCY").unwrap_or_else(|_| "EUR".to_owned());
    let item = request.uri().path().trim_start_matches('/');
    match cents(item) {
        Some(cents) => {
            println!("{item}: {cents} cents");
            Ok(Response::new(format!("{}.{:02} {currency}", cents / 100, cents % 100).into()))
        }
        None => Ok(Response::builder().status(StatusCode::NOT_FOUND).body(format!("no price for {item}").into())?),
    }
}

fn cents(item: &str) -> Option<u32> {
    Some(match item {
        "apple" => 45,
        "bread" => 320,
        "cheese" => 1250,
        _ => return None,
    })
}
