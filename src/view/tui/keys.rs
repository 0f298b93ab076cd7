//! From what a terminal says to what is meant. The only table of keys, apart from the help line that shows it.

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::update::Msg;

/// What a key or a change of size means; other things mean nothing.
pub(super) fn message(event: &Event) -> Option<Msg> {
    match event {
        Event::Key(key) if key.kind != KeyEventKind::Release => of_key(*key),
        Event::Resize(..) => Some(Msg::Resized),
        _ => None,
    }
}

fn of_key(key: KeyEvent) -> Option<Msg> {
    match (key.code, key.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Char('c'), true) | (KeyCode::Char('q') | KeyCode::Esc, false) => Some(Msg::Quit),
        (KeyCode::Up | KeyCode::Char('k'), false) => Some(Msg::Up),
        (KeyCode::Down | KeyCode::Char('j'), false) => Some(Msg::Down),
        (KeyCode::Home | KeyCode::Char('g'), false) => Some(Msg::First),
        (KeyCode::End | KeyCode::Char('G'), false) => Some(Msg::Last),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_mean_what_the_help_line_says() {
        let key = |code, modifiers| message(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Msg::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Msg::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Some(Msg::Down));
        assert_eq!(key(KeyCode::Up, KeyModifiers::NONE), Some(Msg::Up));
        assert_eq!(message(&Event::Resize(40, 10)), Some(Msg::Resized));
        assert_eq!(message(&Event::FocusGained), None);
    }

    #[test]
    fn letting_a_key_go_is_no_second_press() {
        let release = KeyEvent::new_with_kind(KeyCode::Char('q'), KeyModifiers::NONE, KeyEventKind::Release);
        assert_eq!(message(&Event::Key(release)), None);
    }
}
