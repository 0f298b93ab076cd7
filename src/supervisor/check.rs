//! What a health check of a Wasm instance asks, read from its declaration. There is no shell and no `curl` beside a guest, so the
//! commands people write for containers are recognised and made natively; anything else is an error that names the command.

use std::fmt;

use crate::model::{HealthTest, Healthcheck, Resolved, Service};
use crate::plan::unit::InstanceSpec;
use crate::supervisor::health::Timing;

/// A question that can be put to an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An HTTP request.
    Http {
        /// Container port.
        port: u16,
        /// `Host` header.
        host: String,
        /// Path and query.
        path: String,
        /// `GET` or `HEAD`.
        method: Method,
        /// Which answers pass.
        accept: Accept,
    },
    /// A TCP connection.
    Tcp {
        /// Container port.
        port: u16,
    },
}

/// Method of a probe's request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `GET`.
    Get,
    /// `HEAD`: `curl -I`, `wget --spider`.
    Head,
}

/// Which answers pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accept {
    /// Any HTTP answer: `curl` without `-f`.
    Any,
    /// A status below 400.
    Success,
}

/// A health check that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// How often, and what the answers make of the instance.
    pub timing: Timing,
}

/// A health check that cannot be carried out: text for people, naming its command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unrecognised(pub String);

impl Check {
    /// The check of a Wasm instance: `x-wasm.healthcheck.http`, else the file's `healthcheck`, else the image's; absent where there is none.
    pub fn of(spec: &InstanceSpec) -> Result<Option<Self>, Unrecognised> {
        let service = &spec.service;
        let image = spec.resolved.config().healthcheck.as_ref();
        let declared = service.healthcheck.as_ref();
        let timing = Timing::of(&merged(declared, image));
        if let Some(http) = service.wasm.as_ref().and_then(|wasm| wasm.health_http.as_deref()) {
            let probe = if http.starts_with('/') {
                get(http_port(service, &spec.resolved), "localhost", http)
            } else {
                from_url(http, service).ok_or_else(|| {
                    Unrecognised(format!(
                        "x-wasm.healthcheck.http `{http}` is neither a path nor an http:// URL of the service itself"
                    ))
                })?
            };
            return Ok(Some(Self { probe, timing }));
        }
        let test =
            declared.and_then(|check| check.test.as_ref()).or_else(|| image.and_then(|check| check.test.as_ref()));
        let Some(test) = test else { return Ok(None) };
        let words = match test {
            HealthTest::Disabled => return Ok(None),
            HealthTest::Command(words) => Some(words.clone()),
            HealthTest::Shell(line) => shell_words(line),
        };
        match words.and_then(|words| recognise(&words, service)) {
            Some(probe) => Ok(Some(Self { probe, timing })),
            None => Err(Unrecognised(format!(
                "health check `{}` cannot be run beside a Wasm guest: only `curl`, `wget` and `nc` against the service itself are made natively; use `x-wasm: {{ healthcheck: {{ http: /path }} }}`",
                Written(test)
            ))),
        }
    }
}

/// The file's fields over the image's.
fn merged(declared: Option<&Healthcheck>, image: Option<&Healthcheck>) -> Healthcheck {
    let (declared, image) = (declared.cloned().unwrap_or_default(), image.cloned().unwrap_or_default());
    Healthcheck {
        test: declared.test.or(image.test),
        interval: declared.interval.or(image.interval),
        timeout: declared.timeout.or(image.timeout),
        retries: declared.retries.or(image.retries),
        start_period: declared.start_period.or(image.start_period),
        start_interval: declared.start_interval.or(image.start_interval),
    }
}

/// Where a `wasi:http` component is served first: `x-wasm.http.ports`, else the container ports, else 8080.
fn http_port(service: &Service, resolved: &Resolved) -> u16 {
    service
        .wasm
        .iter()
        .flat_map(|wasm| wasm.http_ports.iter().copied())
        .chain(service.ports.iter().map(|port| port.target))
        .chain(service.expose.iter().map(|port| port.port))
        .chain(resolved.config().exposed.iter().map(|port| port.port))
        .next()
        .unwrap_or(8080)
}

fn get(port: u16, host: &str, path: &str) -> Probe {
    Probe::Http { port, host: host.into(), path: path.into(), method: Method::Get, accept: Accept::Success }
}

/// `http://<the service itself>[:port][/path]`, or the same without a scheme, as curl and wget take it.
fn from_url(url: &str, service: &Service) -> Option<Probe> {
    let uri: http::Uri = url.parse().ok()?;
    if uri.scheme_str().is_some_and(|scheme| scheme != "http") {
        return None;
    }
    let uri = if uri.scheme().is_some() { uri } else { format!("http://{url}").parse().ok()? };
    let authority = uri.authority()?;
    is_itself(authority.host(), service).then_some(())?;
    let path = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    Some(get(authority.port_u16().unwrap_or(80), authority.as_str(), path))
}

/// Whether a host in a check means the instance it checks.
fn is_itself(host: &str, service: &Service) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ["localhost", "127.0.0.1", "::1", "0.0.0.0"].contains(&host)
        || host == service.name.as_str()
        || Some(host) == service.container_name.as_deref()
        || Some(host) == service.hostname.as_deref()
}

/// The probe that a command makes, where it is one of the known.
fn recognise(words: &[String], service: &Service) -> Option<Probe> {
    let (program, arguments) = words.split_first()?;
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match program.rsplit('/').next()? {
        "curl" => curl(&arguments, service),
        "wget" => wget(&arguments, service),
        "nc" | "ncat" | "netcat" => netcat(&arguments, service),
        "sh" | "bash" | "ash" => match arguments[..] {
            ["-c", line] => recognise(&shell_words(line)?, service),
            _ => None,
        },
        "busybox" => recognise(words.get(1..)?, service),
        _ => None,
    }
}

fn curl(arguments: &[&str], service: &Service) -> Option<Probe> {
    let flags = Flags {
        plain: &[
            "fail",
            "silent",
            "show-error",
            "location",
            "insecure",
            "verbose",
            "head",
            "fail-with-body",
            "ipv4",
            "ipv6",
            "http1.1",
        ],
        valued: &[
            "output",
            "max-time",
            "connect-timeout",
            "retry",
            "retry-delay",
            "retry-max-time",
            "request",
            "header",
            "user-agent",
            "write-out",
        ],
        short: &[
            ('f', "fail"),
            ('s', "silent"),
            ('S', "show-error"),
            ('L', "location"),
            ('k', "insecure"),
            ('v', "verbose"),
            ('I', "head"),
            ('4', "ipv4"),
            ('6', "ipv6"),
            ('o', "output"),
            ('m', "max-time"),
            ('X', "request"),
            ('H', "header"),
            ('A', "user-agent"),
            ('w', "write-out"),
        ],
    };
    let parsed = flags.parse(arguments)?;
    let [url] = parsed.operands[..] else { return None };
    let mut probe = from_url(url, service)?;
    if let Probe::Http { method, accept, .. } = &mut probe {
        *method = match (parsed.has("head"), parsed.value("request")) {
            (true, None) | (_, Some("HEAD")) => Method::Head,
            (false, None) | (_, Some("GET")) => Method::Get,
            _ => return None,
        };
        *accept = if parsed.has("fail") || parsed.has("fail-with-body") { Accept::Success } else { Accept::Any };
    }
    Some(probe)
}

fn wget(arguments: &[&str], service: &Service) -> Option<Probe> {
    let flags = Flags {
        plain: &["quiet", "spider", "no-verbose", "verbose", "no-check-certificate", "server-response"],
        valued: &["output-document", "tries", "timeout", "header", "user-agent"],
        short: &[
            ('q', "quiet"),
            ('v', "verbose"),
            ('S', "server-response"),
            ('O', "output-document"),
            ('t', "tries"),
            ('T', "timeout"),
            ('U', "user-agent"),
        ],
    };
    // `-nv` is wget's one option of two letters.
    let arguments: Vec<&str> = arguments.iter().copied().filter(|argument| *argument != "-nv").collect();
    let parsed = flags.parse(&arguments)?;
    let [url] = parsed.operands[..] else { return None };
    let mut probe = from_url(url, service)?;
    if let Probe::Http { method, .. } = &mut probe {
        *method = if parsed.has("spider") { Method::Head } else { Method::Get };
    }
    Some(probe)
}

fn netcat(arguments: &[&str], service: &Service) -> Option<Probe> {
    let flags = Flags {
        plain: &["zero", "verbose", "numeric", "tcp"],
        valued: &["wait"],
        short: &[('z', "zero"), ('v', "verbose"), ('n', "numeric"), ('t', "tcp"), ('w', "wait")],
    };
    let parsed = flags.parse(arguments)?;
    let [host, port] = parsed.operands[..] else { return None };
    (parsed.has("zero") && is_itself(host, service)).then_some(())?;
    Some(Probe::Tcp { port: port.parse().ok()? })
}

/// Options of one program.
struct Flags {
    /// Long names without a value.
    plain: &'static [&'static str],
    /// Long names with a value.
    valued: &'static [&'static str],
    /// Short forms.
    short: &'static [(char, &'static str)],
}

#[derive(Default)]
struct Parsed<'a> {
    options: Vec<(&'static str, Option<&'a str>)>,
    operands: Vec<&'a str>,
}

impl Parsed<'_> {
    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| *known == name)
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.options.iter().rev().find(|(known, _)| *known == name).and_then(|(_, value)| *value)
    }
}

impl Flags {
    /// Absent where an option is not known: what it would change is not known either.
    fn parse<'a>(&self, arguments: &[&'a str]) -> Option<Parsed<'a>> {
        let mut parsed = Parsed::default();
        let mut rest = arguments.iter().copied();
        while let Some(word) = rest.next() {
            if let Some(long) = word.strip_prefix("--") {
                let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
                if let Some(known) = self.plain.iter().find(|known| **known == name) {
                    parsed.options.push((known, None));
                } else {
                    let known = self.valued.iter().find(|known| **known == name)?;
                    parsed.options.push((known, Some(value.or_else(|| rest.next())?)));
                }
            } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
                for (at, letter) in letters.char_indices() {
                    let (_, name) = self.short.iter().find(|(known, _)| *known == letter)?;
                    if self.plain.contains(name) {
                        parsed.options.push((name, None));
                        continue;
                    }
                    let attached = &letters[at + letter.len_utf8()..];
                    let value = if attached.is_empty() { rest.next()? } else { attached };
                    parsed.options.push((name, Some(value)));
                    break;
                }
            } else {
                parsed.operands.push(word);
            }
        }
        Some(parsed)
    }
}

/// Words of a shell line that is one command, whose failure branch (`|| exit 1`) and redirections change nothing; absent for anything more.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut command = line.trim();
    for branch in ["exit 1", "exit 1;", "false", "kill 1"] {
        if let Some((before, after)) = command.rsplit_once("||")
            && after.trim() == branch
        {
            command = before.trim_end();
            break;
        }
    }
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = command.chars().peekable();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (None, '\'' | '"') => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (Some(open), _) if letter == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(letter),
            (_, '$' | '`' | '\\') => return None,
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, ';' | '|' | '(' | ')' | '*' | '<') => return None,
            // Only as part of a redirection: `2>&1`, `&>file`.
            (None, '&') if !word.as_ref().is_some_and(|word| word.ends_with('>')) && letters.peek() != Some(&'>') => {
                return None;
            }
            (None, _) if letter.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    quote.is_none().then_some(())?;
    words.extend(word);
    without_redirections(words)
}

fn without_redirections(words: Vec<String>) -> Option<Vec<String>> {
    let mut kept = Vec::new();
    let mut rest = words.into_iter();
    while let Some(word) = rest.next() {
        match word.as_str() {
            ">" | "1>" | "2>" | "&>" => drop(rest.next()?),
            ">/dev/null" | "1>/dev/null" | "2>/dev/null" | "&>/dev/null" | "2>&1" | ">&2" => {}
            other if other.contains('>') => return None,
            _ => kept.push(word),
        }
    }
    Some(kept)
}

struct Written<'a>(&'a HealthTest);

impl fmt::Display for Written<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            HealthTest::Disabled => f.write_str("NONE"),
            HealthTest::Command(words) => f.write_str(&words.join(" ")),
            HealthTest::Shell(line) => f.write_str(line),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { port, path, method, .. } => {
                let method = match method {
                    Method::Get => "GET",
                    Method::Head => "HEAD",
                };
                write!(f, "{method} {path} on port {port}")
            }
            Self::Tcp { port } => write!(f, "connection to port {port}"),
        }
    }
}
