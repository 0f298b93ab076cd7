//! Notes in PostgreSQL: `GET /notes` lists them, one a line, `POST /notes` adds the body.
//! `backend health` asks the server beside it whether it and its database answer.

use std::env;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use postgres::{Client, NoTls};
use signal_hook::consts::SIGTERM;
use tiny_http::{Method, Request, Response, Server};

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
    let url = env::var("DATABASE_URL").map_err(|_| "DATABASE_URL is not set")?;
    let mut database = connect(&url)?;
    let server = Server::http(("0.0.0.0", PORT))?;
    println!("serving on port {PORT}");

    for mut request in server.incoming_requests() {
        if database.is_closed() {
            database = connect(&url)?;
        }
        let (status, body) = answer(&mut request, &mut database).unwrap_or_else(|error| {
            eprintln!("{} {}: {error}", request.method(), request.url());
            (500, "the database refused\n".to_owned())
        });
        // A client that went away is no fault of ours.
        let _ = request.respond(Response::from_string(body).with_status_code(status));
    }
    Ok(())
}

fn connect(url: &str) -> Outcome<Client> {
    let mut database = Client::connect(url, NoTls)?;
    database.batch_execute("CREATE TABLE IF NOT EXISTS notes (id SERIAL PRIMARY KEY, text TEXT NOT NULL)")?;
    Ok(database)
}

fn answer(request: &mut Request, database: &mut Client) -> Outcome<(u16, String)> {
    match (request.method(), request.url()) {
        (Method::Get, "/health") => {
            database.simple_query("SELECT 1")?;
            Ok((200, String::new()))
        }
        (Method::Get, "/notes") => {
            let rows = database.query("SELECT text FROM notes ORDER BY id", &[])?;
            Ok((200, rows.iter().map(|row| row.get::<_, String>(0) + "\n").collect()))
        }
        (Method::Post, "/notes") => {
            let mut text = String::new();
            request.as_reader().read_to_string(&mut text)?;
            database.execute("INSERT INTO notes (text) VALUES ($1)", &[&text])?;
            Ok((201, "kept\n".to_owned()))
        }
        _ => Ok((404, "no such page\n".to_owned())),
    }
}
