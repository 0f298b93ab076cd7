//! A token service, as the registry specification has it: it trades one identity token for signed tokens, each for what was asked
//! in its scope.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rcgen::{Certificate, CertificateParams, KeyPair, SigningKey};
use serde_json::{Value, json};

/// The one identity token that is worth something.
pub const IDENTITY: &str = "identity+token&=";

/// A running service; it ends with the tests.
#[derive(Debug)]
pub struct Tokens {
    port: u16,
    certificate: String,
    asked: Arc<Mutex<Vec<String>>>,
}

/// What it signs with.
struct Signer {
    key: KeyPair,
    certificate: Certificate,
}

impl Tokens {
    /// Starts one.
    pub fn serve() -> Self {
        let key = KeyPair::generate().expect("a key");
        let parameters = CertificateParams::new(Vec::new()).expect("no names are fine names");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let pem = certificate.pem();
        let signer = Signer { key, certificate };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let scopes = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A client that goes away is its own matter.
                let _ = answer(stream, &signer, &scopes);
            }
        });
        Self { port, certificate: pem, asked }
    }

    /// Where it is.
    pub fn realm(&self) -> String {
        format!("http://127.0.0.1:{}/token", self.port)
    }

    /// What its tokens are held against.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The scopes that identity tokens were traded for.
    pub fn traded(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(mut stream: TcpStream, signer: &Signer, traded: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut request = Vec::new();
    let (head, mut body) = loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part)?;
        request.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&request).into_owned();
        match text.split_once("\r\n\r\n") {
            Some((head, body)) => break (head.to_ascii_lowercase(), body.to_owned()),
            None if count == 0 => return Ok(()),
            None => {}
        }
    };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    while body.len() < length.unwrap_or_default() {
        let mut part = [0; 4096];
        let count = stream.read(&mut part)?;
        body += &String::from_utf8_lossy(&part[..count]);
    }
    let form: BTreeMap<String, String> = body
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.into(), decoded(value)))
        .collect();
    let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let known = head.starts_with("post ")
        && field("grant_type") == "refresh_token"
        && field("refresh_token") == IDENTITY
        && field("service") == "it"
        && !field("client_id").is_empty();
    let (status, said) = if known {
        traded.lock().unwrap_or_else(PoisonError::into_inner).push(field("scope").to_owned());
        ("200 OK", json!({ "access_token": signer.token(field("scope")), "expires_in": 300 }))
    } else {
        ("401 Unauthorized", json!({ "details": "this identity token is worth nothing" }))
    };
    let said = said.to_string();
    write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{said}",
        said.len()
    )
}

impl Signer {
    /// A JSON Web Token (RFC 7519) for a scope: `repository:NAME:ACTIONS`.
    fn token(&self, scope: &str) -> String {
        let mut parts = scope.splitn(3, ':');
        let mut part = || parts.next().unwrap_or_default().to_owned();
        let (kind, name, actions) = (part(), part(), part());
        let actions: Vec<&str> = actions.split(',').collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let head = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(self.certificate.der())] });
        let claims = json!({
            "iss": "it", "aud": "it", "sub": "me", "jti": "1", "nbf": now - 60, "iat": now, "exp": now + 300,
            "access": [{ "type": kind, "name": name, "actions": actions }],
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(&claims));
        let signature = self.key.sign(signed.as_bytes()).expect("the key signs");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(plain(&signature)))
    }
}

/// The two numbers of a signature, 32 bytes each, out of their ASN.1 form.
fn plain(signature: &[u8]) -> Vec<u8> {
    let (mut rest, mut plain) = (&signature[2..], Vec::new());
    for _ in 0..2 {
        let (number, after) = rest[2..].split_at(rest[1].into());
        let digits: Vec<u8> = number.iter().copied().skip_while(|byte| *byte == 0).collect();
        plain.extend(std::iter::repeat_n(0, 32 - digits.len()).chain(digits));
        rest = after;
    }
    plain
}

/// A form's value.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap_or(b'?'));
            }
            b'+' => bytes.push(b' '),
            other => bytes.push(other),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
