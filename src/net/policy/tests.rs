//! The policy as tables.

use super::*;

fn reach(egress: &[&str]) -> Reach {
    let egress = egress.iter().map(|entry| entry.parse().expect("a pattern")).collect();
    Reach { egress, ..Reach::default() }
}

fn towards(address: &str, owner: Owner, names: &[&str]) -> Destination {
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    Destination { address: address.parse().expect("an endpoint"), names, owner }
}

/// One word for a decision.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Itself => "itself",
        Decision::Neighbour => "neighbour",
        Decision::Host => "host",
        Decision::Answer => "answer",
        Decision::Egress => "egress",
        Decision::Refused(_) => "refused",
    }
}

#[test]
fn outside_addresses() {
    let table: &[(&[&str], &str, &[&str], &str)] = &[
        // Nothing granted.
        (&[], "93.184.216.34:443", &[], "refused"),
        (&[], "127.0.0.1:80", &[], "itself"),
        (&[], "[::1]:80", &[], "itself"),
        (&[], "[::ffff:127.0.0.1]:80", &[], "itself"),
        (&[], "0.0.0.0:80", &[], "itself"),
        // `*` opens what is not special.
        (&["*"], "93.184.216.34:443", &[], "egress"),
        (&["*:443"], "93.184.216.34:443", &[], "egress"),
        (&["*:443"], "93.184.216.34:80", &[], "refused"),
        (&["*"], "[2606:2800:220:1::1]:443", &[], "egress"),
        (&["*"], "10.0.0.1:80", &[], "refused"),
        (&["*"], "172.17.0.1:80", &[], "refused"),
        (&["*"], "192.168.1.1:80", &[], "refused"),
        (&["*"], "100.64.0.1:80", &[], "refused"),
        (&["*"], "169.254.169.254:80", &[], "refused"),
        (&["*"], "198.18.0.7:80", &[], "refused"),
        (&["*"], "224.0.0.1:80", &[], "refused"),
        (&["*"], "[fe80::1]:80", &[], "refused"),
        (&["*"], "[fd00:ec2::254]:80", &[], "refused"),
        (&["*"], "[::ffff:10.0.0.1]:80", &[], "refused"),
        (&["*"], "[64:ff9b::a9fe:a9fe]:80", &[], "refused"),
        (&["*"], "[2002:a00:1::1]:80", &[], "refused"),
        // Addresses and ranges open what they name.
        (&["10.0.0.0/8"], "10.1.2.3:5432", &[], "egress"),
        (&["10.0.0.0/8:5432"], "10.1.2.3:80", &[], "refused"),
        (&["169.254.169.254"], "169.254.169.254:80", &[], "egress"),
        (&["[fd00::/8]:443"], "[fd12::1]:443", &[], "egress"),
        (&["fd00::/8"], "[fe00::1]:443", &[], "refused"),
        (&["0.0.0.0/0"], "[2606::1]:443", &[], "refused"),
        (&["10.0.0.1"], "[::ffff:10.0.0.1]:80", &[], "egress"),
        // Names open what they resolved to, unless it is special.
        (&["api.example.com:443"], "93.184.216.34:443", &["api.example.com"], "egress"),
        (&["api.example.com:443"], "93.184.216.34:443", &["API.Example.COM"], "egress"),
        (&["api.example.com:443"], "93.184.216.34:443", &[], "refused"),
        (&["api.example.com:443"], "93.184.216.34:80", &["api.example.com"], "refused"),
        (&["api.example.com:443"], "93.184.216.34:443", &["evil.example.com"], "refused"),
        (&["*.example.com"], "93.184.216.34:80", &["a.b.example.com"], "egress"),
        (&["*.example.com"], "93.184.216.34:80", &["example.com"], "refused"),
        (&["*.example.com"], "93.184.216.34:80", &["badexample.com"], "refused"),
        (&["api.example.com"], "10.0.0.1:443", &["api.example.com"], "refused"),
        (&["api.example.com", "10.0.0.1:443"], "10.0.0.1:443", &["api.example.com"], "egress"),
    ];
    for (egress, address, names, expected) in table {
        let decision = decide(&reach(egress), &towards(address, Owner::Outside, names));
        assert_eq!(word(&decision), *expected, "{egress:?} towards {address} {names:?}: {decision:?}");
    }
}

#[test]
fn neighbours_and_host_before_internal() {
    let internal = Reach { internal: true, ..reach(&["*"]) };
    let host = Reach { internal: true, host: true, ..Reach::default() };
    let table = [
        (&internal, "172.20.0.3:5432", Owner::Neighbour, "neighbour"),
        (&internal, "172.20.0.2:80", Owner::Itself, "itself"),
        (&internal, "93.184.216.34:443", Owner::Outside, "refused"),
        (&internal, "198.19.255.254:80", Owner::Host, "refused"),
        (&host, "198.19.255.254:80", Owner::Host, "host"),
        (&host, "93.184.216.34:443", Owner::Outside, "refused"),
        // Whoever called is answered, but for addresses that only a forger calls from.
        (&internal, "172.20.0.9:5353", Owner::Caller, "answer"),
        (&internal, "93.184.216.34:5353", Owner::Caller, "answer"),
        (&internal, "169.254.169.254:80", Owner::Caller, "refused"),
        (&internal, "[fe80::1]:80", Owner::Caller, "refused"),
        (&internal, "127.0.0.1:80", Owner::Caller, "itself"),
    ];
    for (reach, address, owner, expected) in table {
        let decision = decide(reach, &towards(address, owner, &[]));
        assert_eq!(word(&decision), expected, "{address} {owner:?}: {decision:?}");
    }
}

#[test]
fn refusals_say_what_why_and_how() {
    let show = |reach: &Reach, destination: Destination| match decide(reach, &destination) {
        Decision::Refused(Refused { what, why, grant }) => format!("{what} | {why} | {}", grant.unwrap_or_default()),
        other => panic!("allowed: {other:?}"),
    };
    let table = [
        (
            towards("93.184.216.34:443", Owner::Outside, &["api.example.com"]),
            r#"connect to api.example.com:443 | `x-wasm.egress` does not allow it | x-wasm: { egress: ["api.example.com:443"] }"#,
        ),
        (
            towards("169.254.169.254:80", Owner::Outside, &[]),
            r#"connect to 169.254.169.254:80 | it is a link-local address, which `x-wasm.egress` does not name | x-wasm: { egress: ["169.254.169.254:80"] }"#,
        ),
        (
            towards("10.0.0.1:443", Owner::Outside, &["api.example.com"]),
            r#"connect to 10.0.0.1:443 (api.example.com) | `api.example.com` resolved to a private address | x-wasm: { egress: ["10.0.0.1:443"] }"#,
        ),
        (
            towards("198.19.255.254:80", Owner::Host, &[]),
            r#"connect to 198.19.255.254:80 | the file does not grant the host | extra_hosts: ["host.docker.internal:host-gateway"]"#,
        ),
    ];
    for (destination, expected) in table {
        assert_eq!(show(&reach(&[]), destination), expected);
    }
}

#[test]
fn a_grant_that_is_shown_is_one_that_works() {
    for address in ["169.254.169.254:80", "[fd00::1]:443", "10.0.0.1:5432", "93.184.216.34:443"] {
        let destination = towards(address, Owner::Outside, &[]);
        let Decision::Refused(refused) = decide(&reach(&[]), &destination) else { panic!("{address} is allowed") };
        let grant = refused.grant.expect("a grant");
        let entry = grant.split('"').nth(1).expect("a quoted entry").to_owned();
        assert_eq!(decide(&reach(&[&entry]), &destination), Decision::Egress, "{entry}");
    }
}

#[test]
fn lookups() {
    let reach = reach(&["api.example.com:443", "*.cdn.example.com"]);
    let table = [
        ("api.example.com", None, true),
        ("api.example.com.", None, true),
        ("api.example.com", Some(443), true),
        ("api.example.com", Some(80), false),
        ("x.cdn.example.com", Some(80), true),
        ("example.com", None, false),
        ("host.docker.internal", None, false),
    ];
    for (name, port, expected) in table {
        assert_eq!(decide_lookup(&reach, name, port).is_ok(), expected, "{name} {port:?}");
    }
}

#[test]
fn the_hosts_name_is_granted_as_such() {
    let refused = decide_lookup(&reach(&["*"]), "host.docker.internal", Some(80)).expect_err("not granted");
    assert_eq!(refused.grant.as_deref(), Some(r#"extra_hosts: ["host.docker.internal:host-gateway"]"#));
}

#[test]
fn patterns_that_are_none() {
    let table = [
        ("https://api.example.com", "write `host:port`, without a scheme"),
        ("api.example.com:http", "the port is not a number"),
        ("api.example.com:0", "the port is not a number"),
        ("a.*.example.com", "`*` stands alone or for the first label only"),
        ("10.0.0.0/33", "the part behind `/` is not a prefix length"),
        ("host/8", "the part before `/` is not an address"),
        ("[::1", "a `]` is missing"),
        ("[::1]x", "only a port can follow `]`"),
        ("", "it is not a host name, an address, a range or `*`"),
        ("a b:80", "it is not a host name, an address, a range or `*`"),
    ];
    for (entry, reason) in table {
        assert_eq!(entry.parse::<Pattern>().map_err(|bad| bad.reason), Err(reason), "{entry}");
    }
}

#[test]
fn patterns_read_as_they_are_written() {
    for entry in ["*", "*:443", "api.example.com:443", "*.example.com", "10.0.0.0/8:5432", "[fd00::/8]:443", "fd00::/8"]
    {
        assert_eq!(entry.parse::<Pattern>().map(|pattern| pattern.to_string()).as_deref(), Ok(entry));
    }
}

#[test]
fn listening() {
    let own = ["172.20.0.2".parse().expect("an address")];
    for (address, expected) in [
        ("0.0.0.0", true),
        ("::", true),
        ("127.0.0.1", true),
        ("172.20.0.2", true),
        ("172.20.0.3", false),
        ("8.8.8.8", false),
    ] {
        assert_eq!(may_listen(&own, address.parse().expect("an address")), expected, "{address}");
    }
}

#[test]
fn bounds_narrow_what_is_granted_and_add_nothing() {
    let within = |hosts: &[&str], egress: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(ToString::to_string).collect();
        Reach { bounds: Some(Bounds::new("api", &hosts).expect("patterns")), ..reach(egress) }
    };
    let listed = &["db:5432", "api.example.com:443", "10.0.0.0/8:80"][..];
    for (reach, address, owner, names, expected) in [
        (within(listed, &[]), "172.18.0.2:5432", Owner::Neighbour, &["db"][..], "neighbour"),
        (within(listed, &[]), "172.18.0.2:5433", Owner::Neighbour, &["db"], "refused"),
        (within(listed, &[]), "172.18.0.3:5432", Owner::Neighbour, &["cache"], "refused"),
        (within(&[], &["*"]), "93.184.216.34:443", Owner::Outside, &["api.example.com"], "refused"),
        (within(listed, &["*"]), "93.184.216.34:443", Owner::Outside, &["api.example.com"], "egress"),
        (within(listed, &[]), "93.184.216.34:443", Owner::Outside, &["api.example.com"], "refused"),
        (within(listed, &["*"]), "93.184.216.34:443", Owner::Outside, &["evil.example"], "refused"),
        // What only the manifest allows stays out of reach.
        (within(&["*"], &[]), "10.0.0.1:80", Owner::Outside, &[], "refused"),
        (within(listed, &["10.0.0.1"]), "10.0.0.1:80", Owner::Outside, &[], "egress"),
        (within(&[], &[]), "127.0.0.1:80", Owner::Itself, &[], "itself"),
    ] {
        let decision = decide(&reach, &towards(address, owner, names));
        assert_eq!(word(&decision), expected, "{address} {names:?}: {decision:?}");
    }
    let Decision::Refused(refused) = decide(&within(&[], &["*"]), &towards("10.0.0.9:5432", Owner::Neighbour, &["db"]))
    else {
        panic!("it is not listed")
    };
    assert_eq!(refused.grant.as_deref(), Some("[component.api] allowed_outbound_hosts = [\"*://db:5432\"]"));
    let looked_up = |reach: &Reach| decide_lookup(reach, "api.example.com", None).is_ok();
    assert!(looked_up(&within(listed, &["*"])));
    assert!(!looked_up(&within(&["db:5432"], &["*"])) && !looked_up(&within(listed, &[])));
}
