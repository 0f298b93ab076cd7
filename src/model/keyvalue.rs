//! `x-wasm.keyvalue`: where a Wasm service's `wasi:keyvalue` keeps its values, when not in memory.

use std::str::FromStr;

/// A Redis, by the name it has on the service's networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisAddress {
    /// Name or address.
    pub host: String,
    /// Port; 6379 where none is written.
    pub port: u16,
    /// User; absent means the default one.
    pub user: Option<String>,
    /// Password.
    pub password: Option<String>,
    /// Number of the database.
    pub database: u32,
}

/// Text that is no address of a Redis.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address of a Redis")]
pub struct BadRedisAddress(String);

impl FromStr for RedisAddress {
    type Err = BadRedisAddress;

    /// `host`, `host:port`, or `redis://[user][:password@]host[:port][/database]`.
    fn from_str(text: &str) -> Result<Self, BadRedisAddress> {
        let bad = || BadRedisAddress(hidden(text));
        let rest = match text.split_once("://") {
            Some(("redis", rest)) => rest,
            Some(_) => return Err(bad()),
            None => text,
        };
        let (account, rest) = rest.rsplit_once('@').map_or((None, rest), |(account, rest)| (Some(account), rest));
        let (place, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, password) = match account.map(|account| account.split_once(':').unwrap_or((account, ""))) {
            Some((user, password)) => (decoded(user).ok_or_else(bad)?, decoded(password).ok_or_else(bad)?),
            None => (String::new(), String::new()),
        };
        // `[::1]:6379`, `cache:6379`, `cache`.
        let (host, port) = match place.strip_prefix('[').map(|inner| inner.split_once(']')) {
            Some(Some((host, port))) => (host, port.strip_prefix(':')),
            Some(None) => return Err(bad()),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(6379), |port| port.parse().map_err(|_| bad()))?;
        let database = if database.is_empty() { Ok(0) } else { database.parse().map_err(|_| bad()) }?;
        if host.is_empty() || host.contains(char::is_whitespace) || port == 0 {
            return Err(bad());
        }
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self { host: host.to_owned(), port, user: some(user), password: some(password), database })
    }
}

/// The text without its password, for messages.
fn hidden(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((account, rest)) => {
            let user = account.split_once("://").map_or(account, |(_, account)| account);
            format!("redis://{}:…@{rest}", user.split(':').next().unwrap_or_default())
        }
        None => text.to_owned(),
    }
}

/// Text with `%XX` read as the byte it stands for.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<RedisAddress, BadRedisAddress> {
        text.parse()
    }

    fn address(host: &str, port: u16, user: Option<&str>, password: Option<&str>, database: u32) -> RedisAddress {
        let (user, password) = (user.map(str::to_owned), password.map(str::to_owned));
        RedisAddress { host: host.to_owned(), port, user, password, database }
    }

    #[test]
    fn short_and_long_forms_are_read() {
        assert_eq!(read("cache"), Ok(address("cache", 6379, None, None, 0)));
        assert_eq!(read("cache:6380"), Ok(address("cache", 6380, None, None, 0)));
        assert_eq!(read("redis://:p%40ss@cache/2"), Ok(address("cache", 6379, None, Some("p@ss"), 2)));
        assert_eq!(read("redis://me:secret@[::1]:1/"), Ok(address("::1", 1, Some("me"), Some("secret"), 0)));
    }

    #[test]
    fn what_is_none_is_told_without_its_password() {
        for wrong in ["", "cache:", "cache:x", "http://cache", "redis://:%zz@cache", "cache/x", "[::1", "a b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        let error = read("redis://me:secret@cache:x").expect_err("no port");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
}
