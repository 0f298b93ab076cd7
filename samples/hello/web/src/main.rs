//! Serves the world and asks the service `greeter`, by its name, what to say.

use wstd::http::{Body, Client, Error, Request, Response};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, Error> {
    let greeter = std::env::var("GREETER")?;
    let query = request.uri().query().unwrap_or_default();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("name=")).unwrap_or("world");

    let question = Request::get(format!("{greeter}/{name}")).body(Body::empty())?;
    let answer = Client::new().send(question).await?;
    Ok(Response::new(answer.into_body()))
}
