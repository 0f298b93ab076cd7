//! Texts made to eat memory or time: each ends, with an error that says what is too much.

use std::fmt::Write as _;

use super::super::limits;
use super::messages;

fn first_line(text: &str) -> String {
    messages(&[("compose.yaml", text), (".env", &format!("LONG={}\n", "x".repeat(100_000)))])
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn list(count: usize, element: impl Fn(usize) -> String) -> String {
    (0..count).map(element).collect::<Vec<_>>().join(", ")
}

fn services(count: usize, service: impl Fn(usize) -> String) -> String {
    (0..count).fold("services:\n".to_owned(), |mut text, at| {
        let _ = writeln!(text, "  s{at}: {}", service(at));
        text
    })
}

#[test]
fn whatever_is_too_much_is_refused() {
    let braces =
        |levels: usize| format!("services: {{a: {{image: \"{}{}\"}}}}", "${A:-".repeat(levels), "}".repeat(levels));
    let bomb = |leaf: &str, levels: usize| {
        (1..levels).fold(format!("x-0: &a0 {leaf}\n"), |text, level| {
            let aliases = list(10, |_| format!("*a{}", level - 1));
            text + &format!("x-{level}: &a{level} [{aliases}]\n")
        })
    };
    let values = format!("error: the file has more than {} values, aliases expanded", limits::FILE_VALUES);
    let anchors: String = (0..120).map(|at| format!("&a{at} [")).collect();
    let nested_anchors = format!("x-a: {anchors}{}{}", list(60_000, |_| "x".into()), "]".repeat(120));
    let project = format!("error: the project has more than {} values", limits::PROJECT_VALUES);
    let cases = [
        ("[".repeat(1_000_000), "error: not valid YAML: nested too deep".to_owned()),
        ("{a: ".repeat(1_000_000), "error: not valid YAML: nested too deep".into()),
        ("- ".repeat(100_000), "error: nested deeper than 128 levels".into()),
        (braces(1_000_000), "error: variables are nested deeper than 64 levels".into()),
        (bomb("x", 12), values.clone()),
        (bomb(&"y".repeat(100_000), 8), values.clone()),
        (bomb("${LONG}", 6), "error: variables make more than 64 MiB of text".into()),
        (nested_anchors, values),
        (
            services(1, |_| {
                format!("{{image: x, ports: [{}]}}", list(100, |at| format!("\"1.0.0.{at}:1-65535:1-65535\"")))
            }),
            "error: the file publishes more than 200000 ports".into(),
        ),
        (
            services(1, |_| format!("{{image: x, expose: [{}]}}", list(1_000, |at| format!("\"1-{}\"", 65_000 - at)))),
            "error: the service exposes more than 200000 ports".into(),
        ),
        (
            services(1_000, |at| if at == 0 { "{image: x}".into() } else { format!("{{extends: s{}}}", at - 1) }),
            "error: more than 100 services extend one another in a row".into(),
        ),
        (
            services(2_000, |at| match at {
                0 => format!("{{image: x, environment: {{{}}}}}", list(1_000, |at| format!("A{at}: 1"))),
                _ => "{extends: s0}".into(),
            }),
            project,
        ),
    ];
    for (text, wanted) in cases {
        assert_eq!(first_line(&text), wanted, "{:.60}", text);
    }
}

#[test]
fn includes_that_multiply_are_refused() {
    let names: Vec<_> = (0..40).map(|level| format!("{level}.yaml")).collect();
    let texts: Vec<_> = (0..40)
        .map(|level| match level {
            39 => "services: {a: {image: x}}".to_owned(),
            _ => format!("include: [{0}.yaml, {{path: {0}.yaml}}]", level + 1),
        })
        .collect();
    let mut files: Vec<_> = names.iter().map(String::as_str).zip(texts.iter().map(String::as_str)).collect();
    files.push(("compose.yaml", "include: [0.yaml]"));
    let all = messages(&files);
    assert!(all.starts_with(&format!("error: the project has more than {} values", limits::PROJECT_VALUES)), "{all}");
}

#[test]
fn what_is_large_but_sound_loads() {
    let text = services(2_000, |at| format!("{{image: x, depends_on: [s{}], ports: [\"{at}:80\"]}}", at + 1))
        + "  s2000: {image: x}\n";
    assert_eq!(messages(&[("compose.yaml", &text)]), "");
}

#[test]
fn a_message_is_short_whatever_it_quotes() {
    let key = "k".repeat(100_000);
    let all = messages(&[("compose.yaml", &format!("services:\n  a:\n    image: x\n    ? {key}\n    : 1\n"))]);
    assert!(all.len() < 4_000, "{} bytes", all.len());
}
