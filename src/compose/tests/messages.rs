//! What the loader says of wrong files, each beside the files it speaks of: `messages/*.txt`, to be read as a newcomer
//! would. `UPDATE_MESSAGES=1` writes them anew.

use std::fs;
use std::path::Path;

use super::messages;

const FILE: &str = "--- ";
const MESSAGE: &str = "===\n";

#[test]
fn messages_say_what_where_why_and_what_to_do() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/compose/tests/messages");
    let update = std::env::var_os("UPDATE_MESSAGES").is_some();
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("the folder of messages") {
        let path = entry.expect("an entry of the folder").path();
        let text = fs::read_to_string(&path).expect("a text");
        let (input, wanted) = text.split_once(MESSAGE).unwrap_or((&text, ""));
        let files: Vec<_> = input.split(FILE).skip(1).filter_map(|file| file.split_once('\n')).collect();
        assert!(!files.is_empty(), "{} has no files", path.display());
        let message = messages(&files);
        count += 1;
        if update {
            fs::write(&path, format!("{input}{MESSAGE}{message}")).expect("write the message");
        } else if message != wanted {
            wrong.push(format!("{}:\n{message}", path.display()));
        }
    }
    assert!(count > 20, "only {count} messages");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
