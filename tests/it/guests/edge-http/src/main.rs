//! An HTTP server and a MySQL client on WasmEdge's ports of hyper, tokio and mysql_async.
//!
//!   edge-http serve PORT       `/echo` sends the body back, `/slow` answers after 100 ms, `/get?host:port` asks another
//!   edge-http mysql URL QUERY  the first column of each row, one a line

use std::convert::Infallible;
use std::time::Duration;

use hyper::service::{make_service_fn, service_fn};
use hyper::{Body, Client, Request, Response, Server, Uri};
use mysql_async::prelude::Queryable;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["serve", port] => {
            let at = ([0, 0, 0, 0], port.parse().expect("a port")).into();
            let service = make_service_fn(|_| async { Ok::<_, Infallible>(service_fn(answer)) });
            Server::bind(&at).serve(service).await.expect("the server goes on");
        }
        ["mysql", url, query] => {
            let pool = mysql_async::Pool::new(*url);
            let mut connection = pool.get_conn().await.expect("a connection");
            let rows: Vec<String> = connection.query(*query).await.expect("an answer");
            println!("{}", rows.join("\n"));
            drop(connection);
            pool.disconnect().await.expect("a farewell");
        }
        other => panic!("not a deed: {other:?}"),
    }
}

async fn answer(request: Request<Body>) -> Result<Response<Body>, hyper::Error> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    Ok(match request.uri().path() {
        "/echo" => Response::new(request.into_body()),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Response::new(Body::from("slow"))
        }
        "/get" => {
            let uri: Uri = format!("http://{query}").parse().expect("an address");
            Client::new().get(uri).await?
        }
        _ => Response::builder().status(404).body(Body::empty()).expect("a response"),
    })
}
