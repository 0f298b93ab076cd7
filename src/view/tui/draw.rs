//! How the dashboard looks. Changes nothing.
//!
//! Columns that do not fit are left out, the least telling first, so that it can be read from 40 columns and 10 rows on.
//! Colour only repeats what words say.

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table, TableState, Wrap};

use super::state::State;
use crate::event::{Health, InstanceState, InstanceView, Kind, Phase};
use crate::view::row;
use crate::view::style::{Palette, Role};
use crate::view::text::{self, harmless, shorten, width};

/// Draws all of it.
pub fn draw(state: &State, frame: &mut Frame<'_>) {
    let [head, body, detail, help] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(3),
        Constraint::Length(detail_height(frame.area())),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(heading(state)), head);
    services(state, frame, body);
    frame.render_widget(Paragraph::new(details(state)).wrap(Wrap { trim: true }), detail);
    frame.render_widget(Paragraph::new(help_line(state, usize::from(help.width))), help);
}

/// A short terminal keeps its lines for the table.
fn detail_height(area: Rect) -> u16 {
    match area.height {
        0..8 => 0,
        8..14 => 2,
        _ => 3,
    }
}

fn heading(state: &State) -> Line<'_> {
    let phase = match state.snapshot.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    };
    let total = state.instances().len();
    let up = state.instances().filter(|instance| instance.state == InstanceState::Running).count();
    Line::from(vec![
        Span::styled(format!(" {} ", state.snapshot.project), style(state.palette, Role::Strong)),
        Span::raw(format!(" {phase}, {up} of {total} up")),
    ])
}

/// One column: its heading, how much room it wants at least, and what stands in it.
struct Column {
    heading: &'static str,
    /// Columns of the highest rank are left out first.
    rank: u8,
    /// Narrower than this it says too little.
    least: usize,
    text: fn(&InstanceView) -> String,
}

const COLUMNS: [Column; 7] = [
    Column { heading: "NAME", rank: 0, least: 12, text: name },
    Column { heading: "KIND", rank: 4, least: 5, text: kind },
    Column { heading: "STATE", rank: 0, least: 12, text: life },
    Column { heading: "HEALTH", rank: 2, least: 9, text: health },
    Column { heading: "PORTS", rank: 3, least: 12, text: ports },
    Column { heading: "RESTARTS", rank: 5, least: 8, text: restarts },
    Column { heading: "WAITING FOR", rank: 1, least: 11, text: waiting },
];

fn services(state: &State, frame: &mut Frame<'_>, area: Rect) {
    // The block's frame, the cursor's mark.
    let room = usize::from(area.width).saturating_sub(2 + MARK.len());
    let columns = fitting(state, room);
    let heading = columns.iter().map(|(column, _)| Cell::from(column.heading));
    let rows = state.instances().map(|instance| {
        Row::new(columns.iter().map(|(column, width)| {
            let text = shorten(&harmless(&(column.text)(instance)), *width);
            let role = match column.heading {
                "STATE" => state_role(&instance.state),
                "HEALTH" => health_role(instance.health),
                _ => None,
            };
            Cell::from(text).style(role.map(|role| style(state.palette, role)).unwrap_or_default())
        }))
    });
    let widths: Vec<Constraint> =
        columns.iter().map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX))).collect();
    let table = Table::new(rows, widths)
        .header(Row::new(heading).style(style(state.palette, Role::Strong)))
        .block(Block::bordered())
        .column_spacing(gap(room))
        .highlight_symbol(MARK)
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut cursor = TableState::new().with_selected(state.cursor());
    frame.render_stateful_widget(table, area, &mut cursor);
}

const MARK: &str = "> ";

/// Between two columns.
fn gap(room: usize) -> u16 {
    if room < 60 { 1 } else { 2 }
}

/// The columns that fit `room`, with the width each gets.
fn fitting(state: &State, room: usize) -> Vec<(&'static Column, usize)> {
    let mut columns: Vec<(&'static Column, usize)> = COLUMNS
        .iter()
        .map(|column| {
            let widest = state.instances().map(|instance| width(&(column.text)(instance))).max().unwrap_or(0);
            (column, widest.max(column.heading.len()))
        })
        .collect();
    let needed = |columns: &[(&'static Column, usize)]| {
        let least: usize = columns.iter().map(|(column, wanted)| column.least.min(*wanted)).sum();
        least + columns.len().saturating_sub(1) * usize::from(gap(room))
    };
    while columns.len() > 2 && needed(&columns) > room {
        let Some(last) = (0..columns.len()).max_by_key(|&at| columns[at].0.rank) else { break };
        columns.remove(last);
    }
    // What is left over goes to the widest wishes, from the left.
    let mut spare = room.saturating_sub(needed(&columns));
    for (column, wanted) in &mut columns {
        let least = column.least.min(*wanted);
        let more = (*wanted - least).min(spare);
        spare -= more;
        *wanted = least + more;
    }
    columns
}

fn name(instance: &InstanceView) -> String {
    instance.name.to_string()
}

fn kind(instance: &InstanceView) -> String {
    match instance.kind {
        Kind::Linux => "linux".into(),
        Kind::Wasm => "wasm".into(),
    }
}

fn life(instance: &InstanceView) -> String {
    match &instance.state {
        InstanceState::Waiting { .. } => "waiting".into(),
        InstanceState::Starting => "starting".into(),
        InstanceState::Running => "running".into(),
        InstanceState::Paused => "paused".into(),
        InstanceState::Stopping => "stopping".into(),
        InstanceState::Exited { code, .. } => format!("exited ({code})"),
        InstanceState::Restarting { code, .. } => format!("restarting ({code})"),
        InstanceState::Failed { .. } => "failed".into(),
        InstanceState::Created => "created".into(),
    }
}

fn health(instance: &InstanceView) -> String {
    instance.health.map_or("", Health::as_str).to_owned()
}

fn ports(instance: &InstanceView) -> String {
    let mut shown: Vec<String> = Vec::new();
    for port in instance.ports.iter().filter(|port| port.published != 0) {
        let text = format!("{}->{}", port.published, port.target);
        if !shown.contains(&text) {
            shown.push(text);
        }
    }
    shown.join(", ")
}

fn restarts(instance: &InstanceView) -> String {
    if instance.restarts == 0 { String::new() } else { instance.restarts.to_string() }
}

fn waiting(instance: &InstanceView) -> String {
    match &instance.state {
        InstanceState::Waiting { reason } => reason.clone(),
        _ => String::new(),
    }
}

/// More about the selected row, and what was said last.
fn details(state: &State) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    if let Some(why) = &state.lost {
        let lost = format!("The supervisor is gone: {}", harmless(why));
        lines.push(Line::styled(lost, style(state.palette, Role::Error)));
    }
    if let Some(instance) = state.selection() {
        lines.push(Line::from(about(instance, state.now)));
    }
    if let Some(warning) = &state.warning {
        lines.push(Line::styled(harmless(warning), style(state.palette, Role::Warning)));
    }
    lines
}

fn about(instance: &InstanceView, now: Timestamp) -> String {
    let why = match &instance.state {
        InstanceState::Waiting { reason } => format!("waiting for {reason}"),
        InstanceState::Failed { reason } => format!("not started: {reason}"),
        InstanceState::Exited { code, reason: Some(reason) } => format!("exited with code {code}: {reason}"),
        InstanceState::Restarting { code, reason } => {
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("exited with code {code} and starts again{reason}")
        }
        InstanceState::Exited { reason: None, .. }
        | InstanceState::Starting
        | InstanceState::Running
        | InstanceState::Paused
        | InstanceState::Stopping
        | InstanceState::Created => {
            let up = instance.started.filter(|_| instance.state == InstanceState::Running);
            let up =
                up.map(|at| format!("up {}", text::duration(now.duration_since(at).try_into().unwrap_or_default())));
            let ports = row::ports(&instance.ports);
            let parts = [Some(instance.image.clone()), up, Some(ports).filter(|ports| !ports.is_empty())];
            parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
        }
    };
    harmless(&format!("{}: {why}", instance.container))
}

fn help_line(state: &State, columns: usize) -> Line<'static> {
    Line::styled(shorten(" ↑↓ select  Home/End first/last  q quit", columns), style(state.palette, Role::Quiet))
}

fn state_role(state: &InstanceState) -> Option<Role> {
    match state {
        InstanceState::Running => Some(Role::Done),
        InstanceState::Failed { .. } | InstanceState::Restarting { .. } => Some(Role::Error),
        InstanceState::Exited { code, .. } => Some(if *code == 0 { Role::Quiet } else { Role::Error }),
        InstanceState::Waiting { .. } | InstanceState::Starting | InstanceState::Stopping => Some(Role::Busy),
        InstanceState::Paused | InstanceState::Created => Some(Role::Quiet),
    }
}

fn health_role(health: Option<Health>) -> Option<Role> {
    match health {
        Some(Health::Healthy) => Some(Role::Done),
        Some(Health::Unhealthy) => Some(Role::Error),
        Some(Health::Starting) => Some(Role::Busy),
        None => None,
    }
}

/// The role's look in ratatui's types; weight alone where there are no colours.
fn style(palette: Palette, role: Role) -> Style {
    let (colour, modifier) = match role {
        Role::Error => (Some(Color::Red), Modifier::BOLD),
        Role::Warning => (Some(Color::Yellow), Modifier::empty()),
        Role::Hint => (Some(Color::Cyan), Modifier::empty()),
        Role::Done => (Some(Color::Green), Modifier::empty()),
        Role::Busy => (Some(Color::Blue), Modifier::empty()),
        Role::Quiet => (None, Modifier::DIM),
        Role::Strong => (None, Modifier::BOLD),
        Role::Watch => (Some(Color::LightGreen), Modifier::empty()),
    };
    let style = Style::new().add_modifier(modifier);
    match colour.filter(|_| palette.is_coloured()) {
        Some(colour) => style.fg(colour),
        None => style,
    }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::update::{Msg, update};
    use super::*;
    use crate::event::Event;
    use crate::session::Update;
    use crate::view::sample;

    fn busy() -> State {
        let mut snapshot = sample::snapshot();
        let mut add = |service: &str, kind, state| {
            let instance = sample::instance(service, kind, state);
            snapshot.instances.insert(instance.name.clone(), instance);
        };
        add(
            "pricing",
            Kind::Wasm,
            InstanceState::Restarting { code: 134, reason: Some("wasm trap: unreachable".into()) },
        );
        add("migrate", Kind::Linux, InstanceState::Exited { code: 0, reason: None });
        State::new(snapshot, Palette::PLAIN, sample::after(95_000))
    }

    fn shown(state: &State, columns: u16, rows: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
        terminal.draw(|frame| draw(state, frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let lines = buffer.content().chunks(usize::from(columns.max(1)));
        let lines = lines.map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>());
        lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_wide_terminal_shows_every_column() {
        insta::assert_snapshot!(shown(&busy(), 110, 14), @r"
         shop  starting, 2 of 5 up
        ┌────────────────────────────────────────────────────────────────────────────────────────────────────────────┐
        │  NAME       KIND   STATE             HEALTH    PORTS     RESTARTS  WAITING FOR                             │
        │> db-1       linux  running           starting                                                              │
        │  api-1      linux  waiting                                         `db` to become healthy                  │
        │  gateway-1  wasm   running                     8080->80  2                                                 │
        │  pricing-1  wasm   restarting (134)                                                                        │
        │  migrate-1  linux  exited (0)                                                                              │
        │                                                                                                            │
        └────────────────────────────────────────────────────────────────────────────────────────────────────────────┘
        shop-db-1: db:1, up About a minute


         ↑↓ select  Home/End first/last  q quit
        ");
    }

    #[test]
    fn a_usual_terminal_shows_the_selected_row_in_full_below() {
        let mut state = busy();
        update(&mut state, Msg::Down);
        insta::assert_snapshot!(shown(&state, 80, 14), @r"
         shop  starting, 2 of 5 up
        ┌──────────────────────────────────────────────────────────────────────────────┐
        │  NAME       KIND   STATE            HEALTH    PORTS     RESTARTS  WAITING FOR│
        │  db-1       linux  running          starting                                 │
        │> api-1      linux  waiting                                        `db` to be…│
        │  gateway-1  wasm   running                    8080->80  2                    │
        │  pricing-1  wasm   restarting (13…                                           │
        │  migrate-1  linux  exited (0)                                                │
        │                                                                              │
        └──────────────────────────────────────────────────────────────────────────────┘
        shop-api-1: waiting for `db` to become healthy


         ↑↓ select  Home/End first/last  q quit
        ");
    }

    #[test]
    fn a_small_terminal_shows_what_matters_and_scrolls_to_the_cursor() {
        let mut state = busy();
        update(&mut state, Msg::Last);
        insta::assert_snapshot!(shown(&state, 40, 10), @r"
         shop  starting, 2 of 5 up
        ┌──────────────────────────────────────┐
        │  NAME      STATE          WAITING FOR│
        │  gateway-1 running                   │
        │  pricing-1 restarting (1…            │
        │> migrate-1 exited (0)                │
        └──────────────────────────────────────┘
        shop-migrate-1: migrate:1

         ↑↓ select  Home/End first/last  q quit
        ");
    }

    #[test]
    fn a_lost_supervisor_and_warnings_are_told() {
        let mut state = busy();
        update(&mut state, Msg::Session(sample::update(1, Event::Warned { message: "an orphan: `x`".into() })));
        update(&mut state, Msg::Session(Update::Lost("it was\x1b[2J killed".into())));
        let text = shown(&state, 80, 14);
        insta::assert_snapshot!(text.lines().rev().take(4).collect::<Vec<_>>().join("\n"), @r"
         ↑↓ select  Home/End first/last  q quit
        an orphan: `x`
        shop-db-1: db:1, up About a minute
        The supervisor is gone: it was [2J killed
        ");
    }

    #[test]
    fn no_size_is_too_small_to_draw() {
        for (columns, rows) in [(1, 1), (2, 3), (10, 4), (300, 2), (3, 100)] {
            shown(&busy(), columns, rows);
        }
        let mut empty = sample::snapshot();
        empty.instances.clear();
        shown(&State::new(empty, Palette::COLOURED, Timestamp::UNIX_EPOCH), 80, 24);
    }

    #[test]
    fn colour_is_only_there_when_wanted() {
        let coloured = |palette| {
            let mut terminal = Terminal::new(TestBackend::new(80, 14)).unwrap();
            let state = State::new(sample::snapshot(), palette, Timestamp::UNIX_EPOCH);
            terminal.draw(|frame| draw(&state, frame)).unwrap();
            terminal.backend().buffer().content().iter().any(|cell| cell.fg != Color::Reset)
        };
        assert!(coloured(Palette::COLOURED));
        assert!(!coloured(Palette::PLAIN));
    }
}
