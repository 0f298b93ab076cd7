//! Recorded lives of a project, as text.

use super::super::log::captured;
use super::super::sample::{self, after, began, changed, ended, failed, update};
use super::super::screen::Screen;
use super::*;
use crate::event::{Health, Kind};

fn options(progress: Shown, lines: Lines) -> Options {
    Options { progress, lines, out: Palette::PLAIN, err: Palette::PLAIN }
}

fn attached() -> Lines {
    Lines::Shown { format: LogFormat::default(), services: Vec::new() }
}

fn line(millis: i64, service: &str, text: &str) -> LogLine {
    let instance = InstanceName::new(service.into(), 1);
    LogLine { at: after(millis), instance, stream: LogStream::Stdout, text: text.into(), dropped: 0 }
}

fn small() -> Size {
    Size { columns: 60, rows: 12 }
}

/// What a console writes while `play` goes on.
fn played(options: Options, play: impl FnOnce(&mut Console<'_>) -> io::Result<()>) -> (String, String) {
    captured(|streams| {
        let streams = Streams { out: streams.out, err: streams.err };
        play(&mut Console::sized(streams, options, small))
    })
}

fn coming_up() -> Vec<Update> {
    let mut db = sample::snapshot().instances[0].clone();
    db.health = Some(Health::Healthy);
    vec![
        began(0, "Network shop_default", "Creating"),
        ended(150, "Network shop_default", "Created"),
        began(150, "Container shop-db-1", "Creating"),
        ended(300, "Container shop-db-1", "Created"),
        began(300, "Container shop-db-1", "Starting"),
        ended(800, "Container shop-db-1", "Started"),
        ended(800, "Container shop-db-1", "Started"),
        changed(900, &db),
    ]
}

#[test]
fn plain_progress_is_a_line_a_change() {
    let (out, err) = played(options(Shown::Plain, Lines::Kept), |console| {
        console.begin(&sample::snapshot())?;
        for update in coming_up() {
            console.update(&update, after(1_000))?;
        }
        console.settle(&[], after(1_000))
    });
    assert_eq!(out, "");
    assert!(err.lines().all(|line| line.starts_with(' ')), "as compose does: {err}");
    insta::assert_snapshot!(err, @r"
    Network shop_default  Creating
    Network shop_default  Created
    Container shop-db-1  Creating
    Container shop-db-1  Created
    Container shop-db-1  Starting
    Container shop-db-1  Started
    ");
}

#[test]
fn json_progress_is_an_object_a_change_and_quiet_is_silent() {
    let play = |console: &mut Console<'_>| {
        coming_up().iter().try_for_each(|update| console.update(update, after(1_000)))?;
        console.update(&failed(1_000, "Container shop-api-1", "no such image", None), after(1_000))
    };
    let (_, err) = played(options(Shown::Json, Lines::Kept), play);
    insta::assert_snapshot!(err, @r#"
    {"id":"Network shop_default","status":"Creating"}
    {"id":"Network shop_default","status":"Created"}
    {"id":"Container shop-db-1","status":"Creating"}
    {"id":"Container shop-db-1","status":"Created"}
    {"id":"Container shop-db-1","status":"Starting"}
    {"id":"Container shop-db-1","status":"Started"}
    {"id":"Container shop-db-1","status":"Started"}
    {"id":"Container shop-api-1","status":"Error","error":"no such image"}
    "#);
    assert_eq!(played(options(Shown::Quiet, Lines::Kept), play), (String::new(), String::new()));
}

#[test]
fn a_terminal_is_redrawn_in_place_and_lines_go_past_the_block() {
    let screen = Screen::new(60, 12);
    let (mut out, mut err) = (screen.clone(), screen.clone());
    let streams = Streams { out: &mut out, err: &mut err };
    let mut console = Console::sized(streams, options(Shown::Tty, attached()), || Size { columns: 60, rows: 12 });
    let updates = coming_up();

    console.begin(&sample::snapshot()).unwrap();
    updates[..5].iter().for_each(|update| console.update(update, after(400)).unwrap());
    assert!(console.is_moving());
    insta::assert_snapshot!(screen.text(), @r"
    Attaching to api-1, db-1, gateway-1
    [+] Running 1/2
     ✔ Network shop_default  Created   0.1s
     ⠼ Container shop-db-1   Starting  0.2s
    ");

    console.line(&line(500, "db", "starting"), after(500)).unwrap();
    console.tick(after(600)).unwrap();
    insta::assert_snapshot!(screen.text(), @r"
    Attaching to api-1, db-1, gateway-1
    db-1       | starting
    [+] Running 1/2
     ✔ Network shop_default  Created   0.1s
     ⠦ Container shop-db-1   Starting  0.5s
    ");

    updates[5..].iter().for_each(|update| console.update(update, after(800)).unwrap());
    assert!(!console.is_moving());
    console.settle(&[], after(900)).unwrap();
    console.line(&line(950, "db", "ready"), after(950)).unwrap();
    console.update(&began(1_000, "Container shop-db-1", "Stopping"), after(1_000)).unwrap();
    insta::assert_snapshot!(screen.text(), @r"
    Attaching to api-1, db-1, gateway-1
    db-1       | starting
    [+] Running 2/2
     ✔ Network shop_default  Created  0.1s
     ✔ Container shop-db-1   Started  0.7s
    db-1       | ready
    [+] Running 0/1
     ⠋ Container shop-db-1  Stopping  0.0s
    ");
}

#[test]
fn a_flood_of_lines_is_not_slowed_by_the_block_and_a_tick_brings_it_back() {
    let mut written = Vec::new();
    let mut out = Vec::new();
    let streams = Streams { out: &mut out, err: &mut written };
    let mut console = Console::sized(streams, options(Shown::Tty, attached()), small);
    console.update(&began(0, "Container shop-db-1", "Starting"), after(0)).unwrap();
    console.update(&ended(1, "Container shop-db-1", "Started"), after(1)).unwrap();
    (0..1_000).for_each(|number| console.line(&line(2, "db", &number.to_string()), after(2)).unwrap());
    assert!(console.is_moving(), "the block is still to come back");
    console.tick(after(100)).unwrap();
    assert!(!console.is_moving());
    drop(console);
    let draws = String::from_utf8(written).unwrap().matches("[+] Running").count();
    assert_eq!(draws, 3, "two changes and a tick");
}

#[test]
fn more_rows_than_the_terminal_has_never_scroll_until_the_end() {
    let screen = Screen::new(60, 6);
    let (mut out, mut err) = (screen.clone(), screen.clone());
    let streams = Streams { out: &mut out, err: &mut err };
    let mut console = Console::sized(streams, options(Shown::Tty, Lines::Kept), || Size { columns: 60, rows: 6 });
    for number in 0..9 {
        console.update(&began(number, &format!("Container shop-db-{number}"), "Starting"), after(100)).unwrap();
    }
    for number in 0..6 {
        console.update(&ended(200 + number, &format!("Container shop-db-{number}"), "Started"), after(300)).unwrap();
    }
    insta::assert_snapshot!(screen.text(), @r"
    [+] Running 6/9
     ⠸ Container shop-db-6  Starting  0.3s
     ⠸ Container shop-db-7  Starting  0.3s
     ⠸ Container shop-db-8  Starting  0.3s
     … 6 more
    ");
    for number in 6..9 {
        console.update(&ended(300, &format!("Container shop-db-{number}"), "Started"), after(300)).unwrap();
    }
    console.settle(&[], after(300)).unwrap();
    insta::assert_snapshot!(screen.text(), @r"
    [+] Running 9/9
     ✔ Container shop-db-0  Started  0.2s
     ✔ Container shop-db-1  Started  0.2s
     ✔ Container shop-db-2  Started  0.2s
     ✔ Container shop-db-3  Started  0.2s
     ✔ Container shop-db-4  Started  0.2s
     ✔ Container shop-db-5  Started  0.2s
     ✔ Container shop-db-6  Started  0.3s
     ✔ Container shop-db-7  Started  0.3s
     ✔ Container shop-db-8  Started  0.3s
    ");
}

#[test]
fn exits_are_told_once_and_only_of_what_ran_here() {
    let mut gateway = sample::snapshot().instances[2].clone();
    let mut old = sample::instance("old", Kind::Linux, InstanceState::Exited { code: 1, reason: None });
    let (out, err) = played(options(Shown::Plain, attached()), |console| {
        console.begin(&sample::snapshot())?;
        gateway.state = InstanceState::Restarting { code: 134, reason: Some("wasm trap: unreachable".into()) };
        console.update(&changed(1, &gateway), after(1))?;
        console.update(&changed(1, &gateway), after(1))?;
        gateway.state = InstanceState::Running;
        console.update(&changed(2, &gateway), after(2))?;
        gateway.state = InstanceState::Exited { code: 3, reason: None };
        console.update(&changed(3, &gateway), after(3))?;
        console.update(&changed(4, &old), after(4))?;
        old.restarts = 1;
        console.update(&changed(5, &old), after(5))
    });
    insta::assert_snapshot!(out, @r"
    Attaching to api-1, db-1, gateway-1
    gateway-1 exited with code 134 (restarting): wasm trap: unreachable
    gateway-1 exited with code 3
    ");
    assert_eq!(err, "");
}

#[test]
fn only_the_services_asked_for_are_shown() {
    let lines = Lines::Shown { format: LogFormat::default(), services: vec!["api".into()] };
    let (out, _) = played(options(Shown::Quiet, lines), |console| {
        console.begin(&sample::snapshot())?;
        console.line(&line(1, "db", "ready"), after(1))?;
        console.line(&line(2, "api", "ready"), after(2))
    });
    insta::assert_snapshot!(out, @r"
    Attaching to api-1
    api-1      | ready
    ");
}

#[test]
fn a_refusal_is_a_line_with_its_grant_and_summed_up_where_lines_are_not_shown() {
    let refused = update(
        1,
        Event::Refused {
            instance: InstanceName::new("gateway".into(), 1),
            what: "connect to 93.184.216.34:443".into(),
            why: "it is outside this service's networks".into(),
            grant: Some("x-wasm: { egress: [\"example.com:443\"] }".into()),
        },
    );
    let play = |console: &mut Console<'_>| {
        console.begin(&sample::snapshot())?;
        console.update(&refused, after(1))?;
        console.settle(&[], after(2))?;
        console.settle(&[], after(3))
    };
    let (_, err) = played(options(Shown::Quiet, attached()), play);
    insta::assert_snapshot!(err, @r#"
    gateway-1  | refused to connect to 93.184.216.34:443: it is outside this service's networks
    gateway-1  | to allow it: x-wasm: { egress: ["example.com:443"] }
    "#);
    let (_, err) = played(options(Shown::Quiet, Lines::Kept), play);
    insta::assert_snapshot!(err, @r#"
    warning: service `gateway` was refused to connect to 93.184.216.34:443
    hint: to allow it: x-wasm: { egress: ["example.com:443"] }
    "#);
}

#[test]
fn a_failure_ends_with_the_cause_its_last_lines_and_who_waited() {
    let reason = "dependency `db` failed to start: container `shop-db-1` exited (1)";
    let failures = [Failure { service: Some("api".into()), message: reason.into(), hint: None }];
    let (out, err) = played(options(Shown::Plain, Lines::Kept), |console| {
        console.begin(&sample::snapshot())?;
        for number in 0..20 {
            console.line(&line(number, "db", &format!("line {number}")), after(number))?;
        }
        let mut db = sample::snapshot().instances[0].clone();
        db.state = InstanceState::Exited { code: 1, reason: None };
        console.update(&changed(30, &db), after(30))?;
        let api = sample::instance("api", Kind::Linux, InstanceState::Failed { reason: reason.into() });
        console.update(&changed(31, &api), after(31))?;
        console.update(&failed(32, "Container shop-api-1", reason, None), after(32))?;
        console
            .update(&failed(33, "Volume \"shop_data\"", "no space left\non device", Some("make room")), after(33))?;
        console.settle(&failures, after(40))
    });
    assert_eq!(out, "");
    insta::assert_snapshot!(err, @r#"
     Container shop-api-1  Error: dependency `db` failed to start: container `shop-db-1` exited (1)
     Volume "shop_data"  Error: no space left
    error: service `db` exited with code 1
      its last output:
        line 12
        line 13
        line 14
        line 15
        line 16
        line 17
        line 18
        line 19
    error: service `api` was not started: dependency `db` failed to start: container `shop-db-1` exited (1)
    error: Volume "shop_data": no space left
    on device
    hint: make room
    "#);
}

#[test]
fn warnings_are_told_once_and_a_lost_supervisor_is_said() {
    let warned = update(1, Event::Warned { message: "orphan containers: `shop-old-1`".into() });
    let (_, err) = played(options(Shown::Quiet, Lines::Kept), |console| {
        console.update(&warned, after(1))?;
        console.update(&warned, after(2))?;
        console.update(&Update::Lost("connection closed".into()), after(3))
    });
    insta::assert_snapshot!(err, @r"
    warning: orphan containers: `shop-old-1`
    warning: the project's supervisor is gone: connection closed
    ");
}
