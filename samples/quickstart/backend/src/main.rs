//! The stock: counts in a file, prices from the service `pricing`.
//!
//! `GET /items` lists every item with count and price, `POST /buy/ITEM` takes one away, `GET /health` answers when
//! the server runs. `backend health` asks that of the server beside it: an image from scratch has no curl.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::{env, fs, io};

use signal_hook::consts::SIGTERM;
use tiny_http::{Header, Method, Request, Response, Server};

const PORT: u16 = 3000;

fn main() -> ExitCode {
    let outcome = match env::args().nth(1).as_deref() {
        Some("health") => health(),
        _ => serve(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("backend: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn health() -> Outcome {
    let answer = minreq::get(format!("http://127.0.0.1:{PORT}/health")).with_timeout(1).send()?;
    if answer.status_code == 200 { Ok(()) } else { Err(format!("status {}", answer.status_code).into()) }
}

fn serve() -> Outcome {
    signal_hook::flag::register_conditional_shutdown(SIGTERM, 0, Arc::new(AtomicBool::new(true)))?;
    let pricing = env::var("PRICING").unwrap_or_else(|_| "http://pricing:8080".to_owned());
    let mut stock = Stock::open("/data/stock")?;
    let server = Server::http(("0.0.0.0", PORT))?;
    println!("serving on port {PORT}, {} kinds in stock", stock.counts.len());

    for request in server.incoming_requests() {
        let (status, body) = answer(&request, &mut stock, &pricing).unwrap_or_else(|error| {
            eprintln!("{} {}: {error}", request.method(), request.url());
            (502, format!("{{\"error\":{:?}}}", error.to_string()))
        });
        let json = Header::from_bytes("content-type", "application/json").expect("a valid header");
        // A client that went away is no fault of ours.
        let _ = request.respond(Response::from_string(body).with_status_code(status).with_header(json));
    }
    Ok(())
}

fn answer(request: &Request, stock: &mut Stock, pricing: &str) -> Outcome<(u16, String)> {
    match (request.method(), request.url()) {
        (Method::Get, "/health") => Ok((200, "{}".to_owned())),
        (Method::Get, "/items") => {
            let rows = stock
                .counts
                .iter()
                .map(|(item, count)| {
                    let price = price(pricing, item)?;
                    Ok(format!("{{\"item\":\"{item}\",\"count\":{count},\"price\":\"{price}\"}}"))
                })
                .collect::<Outcome<Vec<_>>>()?;
            Ok((200, format!("[{}]", rows.join(","))))
        }
        (Method::Post, url) if url.starts_with("/buy/") => match stock.take(&url["/buy/".len()..])? {
            Some(left) => Ok((200, format!("{{\"left\":{left}}}"))),
            None => Ok((409, "{\"error\":\"sold out\"}".to_owned())),
        },
        _ => Ok((404, "{\"error\":\"no such page\"}".to_owned())),
    }
}

/// Asks the Wasm service; to this container it is a host on the network like any other.
fn price(pricing: &str, item: &str) -> Outcome<String> {
    let answer = minreq::get(format!("{pricing}/{item}")).with_timeout(5).send()?;
    Ok(answer.as_str()?.to_owned())
}

/// What is there, kept as lines `ITEM COUNT` in the volume.
struct Stock {
    path: &'static str,
    counts: BTreeMap<String, u32>,
}

impl Stock {
    fn open(path: &'static str) -> io::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => "apple 12\nbread 5\ncheese 3\n".to_owned(),
            text => text?,
        };
        let counts = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .filter_map(|(item, count)| Some((item.to_owned(), count.parse().ok()?)))
            .collect();
        Ok(Self { path, counts })
    }

    /// Takes one away and says how many are left; nothing when there is none.
    fn take(&mut self, item: &str) -> io::Result<Option<u32>> {
        let Some(count) = self.counts.get_mut(item).filter(|count| **count > 0) else { return Ok(None) };
        *count -= 1;
        let left = *count;
        let text: String = self.counts.iter().map(|(item, count)| format!("{item} {count}\n")).collect();
        // Written aside and renamed: a crash leaves the old file or the new one.
        let fresh = format!("{}.new", self.path);
        fs::write(&fresh, text)?;
        fs::rename(fresh, self.path)?;
        Ok(Some(left))
    }
}
