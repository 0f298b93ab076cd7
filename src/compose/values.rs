//! The little languages inside scalars: durations, sizes, ports, volumes, devices.
//!
//! Pure functions from text to values; what is wrong comes back as a phrase, the place is the caller's to know.

use std::net::IpAddr;

/// Go's durations with compose's days and weeks: `1m30s`, `1.5h`, `2d`, `-1s`, `0`. In nanoseconds.
pub fn duration(text: &str) -> Result<i128, String> {
    let wrong = || format!("`{text}` is not a duration");
    let (negative, mut rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (text.starts_with('-'), rest),
        None => (false, text),
    };
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0.0f64;
    let mut exact = 0i128;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let nanos: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            "w" => 604_800_000_000_000,
            "" => return Err(format!("{}; it has no unit", wrong())),
            unit => return Err(format!("{}; there is no unit `{unit}`", wrong())),
        };
        match number.parse::<i128>() {
            Ok(whole) => exact = exact.checked_add(whole.checked_mul(nanos).ok_or_else(wrong)?).ok_or_else(wrong)?,
            Err(_) => {
                #[expect(clippy::cast_precision_loss, reason = "units are far below 2^53")]
                let unit = nanos as f64;
                total += number.parse::<f64>().map_err(|_| wrong())? * unit;
            }
        }
        rest = after;
    }
    #[expect(clippy::cast_possible_truncation, reason = "rounded to whole nanoseconds; the range is checked below")]
    let sum = exact + total.round() as i128;
    if sum > i128::from(i64::MAX) {
        return Err(wrong());
    }
    Ok(if negative { -sum } else { sum })
}

/// `64m`, `1.5 GiB`, `1024`: binary multiples, as the engine's own tools read them.
pub fn bytes(text: &str) -> Result<i64, String> {
    let wrong = || format!("`{text}` is not a size");
    let at = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or_else(wrong)?;
    let (number, suffix) = (text[..=at].strip_suffix(' ').unwrap_or(&text[..=at]), &text[at + 1..]);
    let size: f64 = number.parse().map_err(|_| wrong())?;
    if size < 0.0 || !size.is_finite() {
        return Err(wrong());
    }
    let suffix = suffix.to_ascii_lowercase();
    let power = match suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix) {
        "" if suffix != "ib" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(format!("{}; write a number with `b`, `k`, `m` or `g`", wrong())),
    };
    #[expect(clippy::cast_possible_truncation, reason = "saturates, as a size beyond the range should")]
    Ok((size * 1024f64.powi(power)) as i64)
}

/// A boolean as YAML 1.1 wrote them.
pub fn boolean(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// A published port of the short form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShortPort {
    /// Address on the host; empty for all.
    pub host_ip: String,
    /// Port or range on the host; empty for a free one.
    pub published: String,
    /// Port in the container.
    pub target: u16,
    /// Protocol, lower case.
    pub protocol: String,
}

/// `[[host_ip:][published]:]target[/protocol]`, with ranges; one entry a container port, in compose's order.
pub fn ports(text: &str) -> Result<Vec<ShortPort>, String> {
    let (rest, container) = text.rsplit_once(':').map_or(("", text), |(rest, container)| (rest, container));
    let (ip, host) = rest.rsplit_once(':').unwrap_or(("", rest));
    let (target, protocol) = match container.split('/').collect::<Vec<_>>().as_slice() {
        ["", ..] => ("", "tcp"),
        [target] | [target, ""] => (*target, "tcp"),
        [target, protocol, ..] => (*target, *protocol),
        [] => ("", "tcp"),
    };
    let bracketed = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    if bracketed.is_none() && ip.contains(':') {
        return Err(format!("`{ip}` needs brackets around it: `[{ip}]`"));
    }
    let host_ip = bracketed.unwrap_or(ip);
    if !host_ip.is_empty() && host_ip.parse::<IpAddr>().is_err() {
        return Err(format!("`{host_ip}` is not an IP address"));
    }
    if target.is_empty() {
        return Err("there is no container port".into());
    }
    let (start, end) = port_range(target).map_err(|what| format!("the container port {what}"))?;
    let published =
        if host.is_empty() { None } else { Some(port_range(host).map_err(|what| format!("the host port {what}"))?) };
    if let Some((first, last)) = published
        && end - start != last - first
        && end != start
    {
        return Err(format!("the ranges `{host}` and `{target}` differ in length"));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(format!("`{protocol}` is not a protocol; there are `tcp`, `udp` and `sctp`"));
    }
    let mut ports: Vec<_> = (start..=end)
        .map(|target| {
            let published = match published {
                None => String::new(),
                Some((first, last)) if start == end && first != last => format!("{first}-{last}"),
                Some((first, _)) => (first + (target - start)).to_string(),
            };
            ShortPort { host_ip: host_ip.to_owned(), published, target, protocol: protocol.clone() }
        })
        .collect();
    ports.sort_by_key(|port| port.target.to_string());
    Ok(ports)
}

/// `80` or `80-90`.
pub fn port_range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if !text.starts_with('+') => Ok(port),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() => {
            Err(format!("`{text}` is above 65535"))
        }
        _ => Err(format!("`{text}` is not a number")),
    };
    let (start, end) = match text.split_once('-') {
        Some((start, end)) => (number(start)?, number(end)?),
        None => (number(text)?, number(text)?),
    };
    if end < start { Err(format!("range `{text}` runs backwards")) } else { Ok((start, end)) }
}

/// A mount of the short form.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ShortMount {
    /// Volume or path; empty for an anonymous volume.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// `ro`.
    pub read_only: bool,
    /// `nocopy`.
    pub no_copy: bool,
    /// `rshared`, ….
    pub propagation: Option<String>,
    /// `z` or `Z`.
    pub selinux: Option<String>,
    /// Of one or two letters, which compose does not look into: printed without options.
    pub bare: bool,
}

impl ShortMount {
    /// Whether the source is a path of the host and not a volume's name.
    pub fn is_bind(&self) -> bool {
        let mut characters = self.source.chars();
        match (characters.next(), characters.next()) {
            (Some('.' | '/' | '~'), _) | (Some('\\'), Some('\\')) => true,
            (Some(drive), Some(':')) => drive.is_alphabetic(),
            _ => false,
        }
    }
}

/// `[source:]target[:option,…]`.
pub fn mount(text: &str) -> Result<ShortMount, String> {
    if text.is_empty() {
        return Err("a volume must not be empty".into());
    }
    if text.len() <= 2 {
        return Ok(ShortMount { target: text.to_owned(), bare: true, ..ShortMount::default() });
    }
    let sections = mount_sections(text);
    if sections.iter().any(String::is_empty) {
        return Err(format!("`{text}` has an empty section between colons"));
    }
    let mut mount = ShortMount::default();
    let options = match sections.as_slice() {
        [target] => {
            mount.target.clone_from(target);
            ""
        }
        [source, target] => {
            (mount.source, mount.target) = (source.clone(), target.clone());
            ""
        }
        [source, target, options] => {
            (mount.source, mount.target) = (source.clone(), target.clone());
            options
        }
        _ => return Err(format!("`{text}` has too many colons")),
    };
    for option in options.split(',') {
        match option {
            "ro" => mount.read_only = true,
            "rw" => mount.read_only = false,
            "nocopy" => mount.no_copy = true,
            "z" | "Z" => mount.selinux = Some(option.to_owned()),
            "rprivate" | "private" | "rshared" | "shared" | "rslave" | "slave" => {
                mount.propagation = Some(option.to_owned());
            }
            _ => {}
        }
    }
    Ok(mount)
}

/// Splits at colons, but not after a drive letter and not inside `${…}`.
fn mount_sections(text: &str) -> Vec<String> {
    let (mut sections, mut section, mut depth) = (Vec::new(), String::new(), 0);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '$' if characters.peek() == Some(&'{') => {
                depth += 1;
                section.push(c);
            }
            '}' if depth > 0 => {
                depth -= 1;
                section.push(c);
            }
            ':' if depth == 0 => {
                let mut letters = section.chars();
                if letters.next().is_some_and(char::is_alphabetic) && letters.next().is_none() {
                    section.push(c);
                } else {
                    sections.push(std::mem::take(&mut section));
                }
            }
            c => section.push(c),
        }
    }
    sections.push(section);
    sections
}

/// `a/./b/../c` → `a/c`, as Go's `path.Clean`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

/// A project's name from a directory's: lower case, `[a-z0-9_-]` kept, leading `_` and `-` dropped.
pub fn project_name(text: &str) -> String {
    let kept: String = text.to_lowercase().chars().filter(|c| matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')).collect();
    kept.trim_start_matches(['_', '-']).to_owned()
}

/// The candidate that is nearly what was written.
pub fn similar<'c>(written: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let length = written.chars().count();
    let limit = (length / 3).max(1);
    candidates
        .into_iter()
        // What no name can be near is not compared, however long it is.
        .filter(|candidate| length <= 64 && candidate.len().abs_diff(length) <= limit + written.len() - length)
        .map(|candidate| (distance(&written.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= limit && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, nanos) in [
            ("1m30s", Some(90_000_000_000)),
            ("0.5s", Some(500_000_000)),
            ("1d", Some(86_400_000_000_000)),
            ("-1s", Some(-1_000_000_000)),
            ("0", Some(0)),
            ("30", None),
            ("1x", None),
            ("", None),
            ("s", None),
            ("1 s", None),
        ] {
            assert_eq!(duration(text).ok(), nanos, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, size) in [
            ("64m", Some(67_108_864)),
            ("1.5 GiB", Some(1_610_612_736)),
            ("10", Some(10)),
            ("10b", Some(10)),
            ("1KB", Some(1024)),
            ("1ib", None),
            ("-1", None),
            ("1x", None),
            ("", None),
        ] {
            assert_eq!(bytes(text).ok(), size, "{text}");
        }
    }

    #[test]
    fn short_ports() {
        let print = |text: &str| match ports(text) {
            Ok(ports) => ports
                .iter()
                .map(|port| format!("{}|{}|{}|{}", port.host_ip, port.published, port.target, port.protocol))
                .collect::<Vec<_>>()
                .join(" "),
            Err(what) => what,
        };
        for (text, wanted) in [
            ("80", "||80|tcp"),
            ("127.0.0.1::80/udp", "127.0.0.1||80|udp"),
            ("[::1]:8080:80", "::1|8080|80|tcp"),
            ("8000-8001:80-81", "|8000|80|tcp |8001|81|tcp"),
            ("8000-8010:80", "|8000-8010|80|tcp"),
            ("9-10:9-10", "|10|10|tcp |9|9|tcp"),
            ("8000-8002:80-81", "the ranges `8000-8002` and `80-81` differ in length"),
            ("80:70000", "the container port `70000` is above 65535"),
            ("x:80", "the host port `x` is not a number"),
            ("80:90-80", "the container port range `90-80` runs backwards"),
            ("80/xyz", "`xyz` is not a protocol; there are `tcp`, `udp` and `sctp`"),
            ("a.b:1:2", "`a.b` is not an IP address"),
            ("::1:1:2", "`::1` needs brackets around it: `[::1]`"),
            ("80:", "there is no container port"),
        ] {
            assert_eq!(print(text), wanted, "{text}");
        }
    }

    #[test]
    fn short_mounts() {
        let mount = mount("C:\\data:/d:ro,z").expect("valid");
        assert_eq!((mount.source.as_str(), mount.read_only, mount.is_bind()), ("C:\\data", true, true));
        assert!(super::mount("aa:bb:cc:dd").is_err() && super::mount("aa::bb").is_err());
    }

    #[test]
    fn nearly_the_same() {
        assert_eq!(similar("imgae", ["build", "image", "init"]), Some("image"));
        assert_eq!(similar("enviroment", ["environment", "env_file"]), Some("environment"));
        assert_eq!(similar("zzz", ["build", "image"]), None);
    }
}
