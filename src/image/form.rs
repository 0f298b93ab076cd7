//! Pairs as queries and forms carry them (`application/x-www-form-urlencoded`).

/// `name=value&…`: of values, all but letters, digits and some marks by their bytes.
pub fn encoded(pairs: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        text += if text.is_empty() { "" } else { "&" };
        text += &format!("{name}=");
        for byte in value.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                other => text += &format!("%{other:02X}"),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_is_carried() {
        let pairs = [("scope", "repository:a/b:pull,push".to_owned()), ("x", "&=é".to_owned())];
        assert_eq!(encoded(&pairs), "scope=repository%3Aa%2Fb%3Apull%2Cpush&x=%26%3D%C3%A9");
    }
}
