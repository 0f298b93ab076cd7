//! `peer serve` as a command of WASI 0.3: all connections are served at once, by one guest that waits for many things.

use std::cell::Cell;

use wasip3::cli::{environment, stdout};
use wasip3::clocks::monotonic_clock;
use wasip3::filesystem::preopens;
use wasip3::filesystem::types::{DescriptorFlags, OpenFlags, PathFlags};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket,
};
use wasip3::wit_bindgen::{StreamResult, spawn_local};

wasip3::cli::command::export!(Peer);

struct Peer;

thread_local! {
    static RELEASED: Cell<bool> = const { Cell::new(false) };
}

impl wasip3::exports::cli::run::Guest for Peer {
    async fn run() -> Result<(), ()> {
        let arguments = environment::get_arguments();
        match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [_, "serve", port] => serve(port.parse().map_err(drop)?).await.map_err(|error| eprintln!("{error:?}")),
            [_, "say", text] => say(format!("{text}\n")).await,
            [_, "fail"] => Err(()),
            _ => Err(()),
        }
    }
}

async fn say(text: String) -> Result<(), ()> {
    let (mut writer, reader) = wasip3::wit_stream::new();
    let written = stdout::write_via_stream(reader);
    writer.write_all(text.into_bytes()).await;
    drop(writer);
    written.await.map_err(drop)
}

async fn serve(port: u16) -> Result<(), ErrorCode> {
    let datagrams = UdpSocket::create(IpAddressFamily::Ipv4)?;
    datagrams.bind(at((0, 0, 0, 0), port))?;
    spawn_local(async move {
        while let Ok((data, from)) = datagrams.receive().await {
            let _ = datagrams.send(data, Some(from)).await;
        }
    });
    let socket = TcpSocket::create(IpAddressFamily::Ipv4)?;
    socket.bind(at((0, 0, 0, 0), port))?;
    let mut connections = socket.listen()?;
    while let Some(connection) = connections.next().await {
        spawn_local(async move {
            if let Err(error) = answer(connection).await {
                eprintln!("a connection failed: {error:?}");
            }
        });
    }
    Ok(())
}

fn at(address: (u8, u8, u8, u8), port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
}

async fn answer(connection: TcpSocket) -> Result<(), ErrorCode> {
    let (mut incoming, _) = connection.receive();
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let (result, bytes) = incoming.read(Vec::with_capacity(4096)).await;
        head.extend(bytes);
        if !matches!(result, StreamResult::Complete(_)) {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let deed = match words.as_slice() {
        ["peer"] => connection.get_remote_address().map(|peer| format!("{peer:?}")).map_err(|error| told(&error)),
        words => act(words).await,
    };
    let (status, text) = match deed {
        Ok(text) => ("200 OK", text),
        Err(text) => ("502 Bad Gateway", text),
    };
    let length = text.len();
    send(&connection, format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{text}")).await
}

async fn send(connection: &TcpSocket, text: String) -> Result<(), ErrorCode> {
    let (mut writer, reader) = wasip3::wit_stream::new();
    let sent = connection.send(reader);
    writer.write_all(text.into_bytes()).await;
    drop(writer);
    sent.await
}

async fn act(words: &[&str]) -> Result<String, String> {
    match words {
        ["say", text] => Ok((*text).to_owned()),
        ["env", name] => {
            let variables = environment::get_environment();
            Ok(variables
                .into_iter()
                .find(|(key, _)| key == name)
                .map_or_else(|| "unset".to_owned(), |(_, value)| value))
        }
        ["wait"] => {
            while !RELEASED.get() {
                monotonic_clock::wait_for(10_000_000).await;
            }
            Ok("released".to_owned())
        }
        ["release"] => {
            RELEASED.set(true);
            Ok("done".to_owned())
        }
        ["lookup", name] => {
            let found = resolve_addresses((*name).to_owned()).await.map_err(|error| format!("{error:?}"))?;
            Ok(found.iter().map(|address| format!("{address:?}")).collect::<Vec<_>>().join(" "))
        }
        ["udp", host, port, text] => {
            let port = port.parse().map_err(|_| "no port".to_owned())?;
            ask(host, port, text).await
        }
        ["hoard", path] => Ok(hoard(path).await),
        ["read", path] => read(path).await.map_err(|error| format!("{error:?}")),
        ["get", host, port, rest @ ..] => {
            let port = port.parse().map_err(|_| "no port".to_owned())?;
            get(host, port, &rest.join("/")).await
        }
        _ => Err("no such deed".to_owned()),
    }
}

async fn read(name: &str) -> Result<String, wasip3::filesystem::types::ErrorCode> {
    let (root, _) = preopens::get_directories().into_iter().find(|(_, path)| path == "/").expect("a root");
    let flags = DescriptorFlags::READ;
    let file = root.open_at(PathFlags::empty(), name.to_owned(), OpenFlags::empty(), flags).await?;
    let (bytes, _) = file.read_via_stream(0);
    Ok(String::from_utf8_lossy(&bytes.collect().await).into_owned())
}

/// Opens a file again and again, to the end: how often it could, and why no more.
async fn hoard(name: &str) -> String {
    let (root, _) = preopens::get_directories().into_iter().find(|(_, path)| path == "/").expect("a root");
    let mut open = Vec::new();
    while open.len() < 1000 {
        match root.open_at(PathFlags::empty(), name.to_owned(), OpenFlags::empty(), DescriptorFlags::READ).await {
            Ok(file) => open.push(file),
            Err(error) => return format!("{} {error:?}", open.len()),
        }
    }
    "no end".to_owned()
}

fn told(error: &dyn std::fmt::Debug) -> String {
    format!("{error:?}")
}

async fn lookup(host: &str) -> Result<(u8, u8, u8, u8), String> {
    let found = resolve_addresses(host.to_owned()).await.map_err(|error| told(&error))?;
    let found = found.into_iter().find_map(|address| match address {
        IpAddress::Ipv4(address) => Some(address),
        IpAddress::Ipv6(_) => None,
    });
    Ok(found.ok_or("no address")?)
}

/// Sends a datagram and waits for another.
async fn ask(host: &str, port: u16, text: &str) -> Result<String, String> {
    let to = at(lookup(host).await?, port);
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).map_err(|error| told(&error))?;
    socket.send(text.as_bytes().to_vec(), Some(to)).await.map_err(|error| told(&error))?;
    let (data, _) = socket.receive().await.map_err(|error| told(&error))?;
    Ok(String::from_utf8_lossy(&data).into_owned())
}

async fn get(host: &str, port: u16, path: &str) -> Result<String, String> {
    let address = lookup(host).await?;
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(|error| told(&error))?;
    socket.connect(at(address, port)).await.map_err(|error| told(&error))?;
    send(&socket, format!("GET /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
        .await
        .map_err(|error| told(&error))?;
    let (incoming, ended) = socket.receive();
    let answer = String::from_utf8_lossy(&incoming.collect().await).into_owned();
    ended.await.map_err(|error| told(&error))?;
    Ok(answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or(answer))
}
