//! The house rules that neither compiler nor clippy know: which floor may name which, that no two
//! modules import each other, where the sharp tools are kept, how long things may get. Every
//! checker is shown to find what it is for.
#![cfg(test)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

const COLUMNS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 700;

/// Directories of `src`, from the lowest floor up. Rooms of one floor stand side by side.
const FLOORS: [&[&str]; 7] = [
    &["ground"],
    &["bytes"],
    &["state"],
    &["sys"],
    &["io"],
    &["worker", "broker", "admin", "bench"],
    &["process"],
];

/// A room, and what it may name of another on its floor: what data must pass.
const PASSES: [(&str, &str); 2] = [
    // The admin listener shows what the broker counts.
    ("admin", "broker::BrokerCounters"),
    // The bare loop, which a server is compared with, has a broker where the server has one.
    ("bench", "broker"),
];

/// A word of code, and the only files (or beginnings of paths) below `src` that may use it.
const KEPT_IN: [(&str, &[&str]); 4] = [
    ("monoio", &["src/sys/runtime.rs"]),
    ("unsafe", &["src/sys/raw.rs"]),
    ("httparse", &["src/bytes/http.rs", "src/bytes/http/"]),
    ("redis_protocol", &["src/bytes/resp.rs", "src/bytes/resp/"]),
];

/// Words that mark unfinished work; put together here, so that this file is free of them.
const UNFINISHED: [&str; 4] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("to", "do!"),
    concat!("unimplemen", "ted!"),
];

/// What a lock file says of where a package comes from: clients find that by their own settings.
const DOWNLOAD_ADDRESS: &str = concat!("\"resol", "ved\"");

/// A file of the project: its path from the root, and its text.
struct File {
    path: String,
    text: String,
}

#[test]
fn floors_name_only_what_is_below_them() {
    check(&sources(), floor_problems);
}

#[test]
fn no_two_modules_import_each_other() {
    let problems = circle_problems(&sources());
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

#[test]
fn sharp_tools_stay_in_their_drawers() {
    check(&sources(), drawer_problems);
}

#[test]
fn lines_functions_and_files_are_short() {
    check(&rust_files(), length_problems);
}

#[test]
fn every_file_says_what_it_is() {
    check(&rust_files(), header_problems);
}

#[test]
fn nothing_is_left_unfinished() {
    check(&rust_files(), unfinished_problems);
}

#[test]
fn no_lock_file_names_download_addresses() {
    check(&all_files(), download_problems);
}

#[test]
fn figures_in_the_readme_are_those_that_were_measured() {
    let read = |path| fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let readme = read("README.md");
    let (_, figures) = readme.split_once("## Figures\n").unwrap();
    let (figures, _) = figures.split_once("\n## ").unwrap();
    let (table, peers) = (read("benches/results/table.md"), read("benches/results/peers.txt"));
    assert!(figures.contains(&table), "benches/results/table.md has other figures");
    let rows = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with('|')).map(str::to_owned).collect()
    };
    let measured = [rows(&table), rows(&peers)].concat();
    let unknown: Vec<_> = rows(figures).into_iter().filter(|row| !measured.contains(row)).collect();
    assert!(unknown.is_empty(), "no result has this:\n{}", unknown.join("\n"));
}

fn check(files: &[File], checker: fn(&File) -> Vec<String>) {
    assert!(!files.is_empty(), "no files to check");
    let problems: Vec<String> = files
        .iter()
        .flat_map(|file| {
            checker(file).into_iter().map(|problem| format!("{}: {problem}", file.path))
        })
        .collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// Says where a file names a floor above its own, or a room beside its own. `lib.rs` and `main.rs`
/// are above all floors.
fn floor_problems(file: &File) -> Vec<String> {
    let Some((room, own)) = room_of(&file.path) else { return Vec::new() };
    let code: String = file.text.lines().map(|line| code_of(line).to_owned() + "\n").collect();
    let mut problems = Vec::new();
    for root in ["crate::", "corecast::", "super::super::"] {
        for (position, _) in code.match_indices(root) {
            for path in paths_after(&code[position + root.len()..], &[]) {
                let Some(name) = path.first() else { continue };
                let Some(named) = floor_of(name) else { continue };
                let path = path.join("::");
                let problem = if named > own {
                    format!("{room} must not know {root}{name}")
                } else if named == own && name != room && !may_pass(room, &path) {
                    format!("{room} must not know {root}{path}")
                } else {
                    continue;
                };
                if !problems.contains(&problem) {
                    problems.push(problem);
                }
            }
        }
    }
    problems
}

/// The room that a file is in, and its floor.
fn room_of(path: &str) -> Option<(&str, usize)> {
    let directory = path.strip_prefix("src/")?.split('/').next()?;
    let room = directory.trim_end_matches(".rs");
    Some((room, floor_of(room)?))
}

fn floor_of(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

fn may_pass(room: &str, path: &str) -> bool {
    PASSES.iter().any(|(to, passing)| {
        let rest = path.strip_prefix(passing);
        *to == room && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    })
}

/// Says which modules import each other. A module and those inside it count as one: what one of
/// them imports, all of them do. What only tests compile does not count.
fn circle_problems(files: &[File]) -> Vec<String> {
    let modules: BTreeMap<Vec<String>, &File> = files
        .iter()
        .filter(|file| !file.path.ends_with("/tests.rs"))
        .filter_map(|file| Some((module_of(&file.path)?, file)))
        .collect();
    let mut imports = BTreeMap::new();
    for (own, file) in &modules {
        for path in named_paths(&code_without_tests(&file.text), own) {
            let mut beginnings = (1..=path.len()).rev().map(|length| &path[..length]);
            let Some(other) = beginnings.find(|path| modules.contains_key(*path)) else { continue };
            let shared = own.iter().zip(other).take_while(|(a, b)| a == b).count();
            // Otherwise one is inside the other.
            if let (Some(from), Some(to)) = (own.get(..=shared), other.get(..=shared)) {
                let import = format!("{} imports {}", own.join("::"), other.join("::"));
                imports.entry((from.to_vec(), to.to_vec())).or_insert(import);
            }
        }
    }
    let mut problems = Vec::new();
    for ((from, to), there) in imports.iter().filter(|((from, to), _)| from < to) {
        if let Some(back) = imports.get(&(to.clone(), from.clone())) {
            problems.push(format!("{there}, and {back}"));
        }
    }
    problems
}

/// The names on the way to a file's module: `state` and `streams` of `src/state/streams/mod.rs`.
/// `lib.rs` and `main.rs` have none.
fn module_of(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let path = path.strip_suffix("/mod").unwrap_or(path);
    let is_root = matches!(path, "lib" | "main");
    (!is_root).then(|| path.split('/').map(str::to_owned).collect())
}

/// Code without its comments, and without the items that only tests compile.
fn code_without_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(code_of).collect();
    let (mut rest, mut code) = (&lines[..], String::new());
    while let [line, after @ ..] = rest {
        rest = after;
        if line.trim() == "#[cfg(test)]" && !after.is_empty() {
            rest = &after[item_lines(after)..];
        } else {
            code = code + line + "\n";
        }
    }
    code
}

/// The paths that the code of a module names, as they are from the root.
fn named_paths(code: &str, own: &[String]) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for root in ["crate::", "super::"] {
        for (position, _) in code.match_indices(root) {
            let (before, mut rest) = code.split_at(position);
            // The middle of a path belongs to its beginning.
            if before.ends_with(|character| is_word(character) || character == ':') {
                continue;
            }
            let mut base = own;
            while let Some(after) = rest.strip_prefix("super::") {
                (base, rest) = (&base[..base.len().saturating_sub(1)], after);
            }
            match rest.strip_prefix("crate::") {
                Some(rest) => paths.extend(paths_after(rest, &[])),
                None => paths.extend(paths_after(rest, base)),
            }
        }
    }
    paths
}

/// A path, or the paths of a group of them, behind what stands before it: `io::listener` of
/// `io::listener`, and `io::a`, `io::b` and `state` of `{io::{a, b}, state::{self}}`.
fn paths_after(code: &str, before: &[String]) -> Vec<Vec<String>> {
    let code = code.trim_start();
    if let Some(group) = code.strip_prefix('{') {
        return parts_of(group).into_iter().flat_map(|part| paths_after(part, before)).collect();
    }
    let Some(word) = first_word(code) else { return vec![before.to_vec()] };
    let path = match word {
        "self" => before.to_vec(),
        _ => [before, &[word.to_owned()]].concat(),
    };
    match code[word.len()..].strip_prefix("::") {
        Some(rest) => paths_after(rest, &path),
        None => vec![path],
    }
}

/// What the commas of a group divide, to the brace that closes it.
fn parts_of(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (position, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                parts.push(&group[start..position]);
                start = position + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    parts.retain(|part| !part.trim().is_empty());
    parts
}

fn first_word(code: &str) -> Option<&str> {
    code.trim_start().split(|character| !is_word(character)).next().filter(|word| !word.is_empty())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

fn drawer_problems(file: &File) -> Vec<String> {
    let mut problems = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        for word in code_of(line).split(|character| !is_word(character)) {
            let Some((_, homes)) = KEPT_IN.iter().find(|(kept, _)| *kept == word) else { continue };
            if !homes.iter().any(|home| file.path.starts_with(home)) {
                problems.push(format!("line {number}: {word} belongs in {}", homes[0]));
            }
        }
    }
    problems
}

/// A line without its comment. A string with ` //` in it is taken for one; that only hides code.
fn code_of(line: &str) -> &str {
    let is_comment =
        |position: &usize| line[..*position].chars().next_back().is_none_or(char::is_whitespace);
    let comment = line.match_indices("//").map(|(position, _)| position).find(is_comment);
    comment.map_or(line, |position| &line[..position])
}

fn length_problems(file: &File) -> Vec<String> {
    let lines: Vec<&str> = file.text.lines().collect();
    let mut problems = Vec::new();
    if lines.len() > FILE_LINES_MAX {
        problems.push(format!("{} lines are more than {FILE_LINES_MAX}", lines.len()));
    }
    for (index, line) in lines.iter().enumerate() {
        let columns = line.chars().count();
        if columns > COLUMNS_MAX {
            problems.push(format!("line {}: {columns} columns", index + 1));
        }
        if let Some(name) = function_name(line) {
            let length = item_lines(&lines[index..]);
            if length > FUNCTION_LINES_MAX {
                problems.push(format!("line {}: {name} has {length} lines", index + 1));
            }
        }
    }
    problems
}

fn function_name(line: &str) -> Option<&str> {
    let (before, after) = code_of(line).split_once("fn ")?;
    let is_qualifier = |word: &str| {
        matches!(word, "const" | "async" | "unsafe" | "extern" | "\"C\"") || word.starts_with("pub")
    };
    before.split_whitespace().all(is_qualifier).then(|| first_word(after))?
}

/// Lines of the function or other item that begins with the first line, as rustfmt lays it out: to
/// the brace at its own indentation, or to the semicolon of one without a body.
fn item_lines(lines: &[&str]) -> usize {
    let indentation = lines[0].len() - lines[0].trim_start().len();
    let mut has_body = false;
    for (index, line) in lines.iter().enumerate() {
        let code = code_of(line).trim_end();
        let is_closing = code.len() == indentation + 1 && code.ends_with('}');
        let is_whole = !has_body && (code.ends_with(';') || code.ends_with('}'));
        if is_closing || is_whole {
            return index + 1;
        }
        has_body |= code.ends_with('{');
    }
    lines.len()
}

fn header_problems(file: &File) -> Vec<String> {
    let has_header = file.text.starts_with("//! ");
    if has_header { Vec::new() } else { vec!["does not begin with a `//!` sentence".to_owned()] }
}

fn unfinished_problems(file: &File) -> Vec<String> {
    problems_with(file, &UNFINISHED)
}

fn download_problems(file: &File) -> Vec<String> {
    problems_with(file, &[DOWNLOAD_ADDRESS])
}

fn problems_with(file: &File, words: &[&str]) -> Vec<String> {
    let find = |(number, line): (usize, &str)| {
        let word = words.iter().find(|word| line.contains(**word))?;
        Some(format!("line {number}: {word}"))
    };
    (1..).zip(file.text.lines()).filter_map(find).collect()
}

fn sources() -> Vec<File> {
    rust_files().into_iter().filter(|file| file.path.starts_with("src/")).collect()
}

fn rust_files() -> Vec<File> {
    all_files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// All files of the project but those that tools fill.
fn all_files() -> Vec<File> {
    let mut files = Vec::new();
    collect(Path::new(env!("CARGO_MANIFEST_DIR")), "", &mut files);
    files
}

fn collect(root: &Path, directory: &str, files: &mut Vec<File>) {
    const FILLED_BY_TOOLS: [&str; 6] =
        ["target", ".git", "node_modules", ".venv", "corpus", "Cargo.lock"];
    for entry in fs::read_dir(root.join(directory)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if FILLED_BY_TOOLS.contains(&name.as_str()) {
            continue;
        }
        let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
        if entry.file_type().unwrap().is_dir() {
            collect(root, &path, files);
        } else if let Ok(bytes) = fs::read(entry.path()) {
            files.push(File { path, text: String::from_utf8_lossy(&bytes).into_owned() });
        }
    }
}

/// The checkers find what they are for, and nothing else.
mod checkers {
    use super::*;

    fn problems(checker: fn(&File) -> Vec<String>, path: &str, text: &str) -> usize {
        checker(&File { path: path.to_owned(), text: text.to_owned() }).len()
    }

    #[test]
    fn find_arrows_that_point_up() {
        for (path, text, expected) in [
            ("src/bytes/http.rs", "use crate::ground::limits;", 0),
            ("src/bytes/http.rs", "use crate::bytes::target;", 0),
            ("src/bytes/http.rs", "use crate::state::slab;", 1),
            ("src/bytes/http.rs", "let x = crate::worker::run();", 1),
            ("src/bytes/http.rs", "// crate::worker calls this.", 0),
            ("src/bytes/http.rs", "use crate::{ground, io::{a, b}, state::{self, process}};", 2),
            ("src/bytes/http.rs", "use crate::{\n    ground,\n    sys,\n};", 1),
            ("src/state/slab/page.rs", "use super::super::io::listener;", 1),
            ("src/state.rs", "use crate::sys::clock;", 1),
            ("src/process/server.rs", "use crate::worker::Worker;", 0),
            ("src/ground/ids.rs", "use crate::bytes::http;", 1),
            ("src/main.rs", "use corecast::process;", 0),
            ("src/io/broker.rs", "use corecast::process;", 1),
            ("src/broker/hub.rs", "use corecast::process;", 1),
            ("src/broker/hub.rs", "use crate::io::rate_limited;", 0),
            ("src/io/link/mod.rs", "use crate::broker::BrokerCounters;", 1),
            ("src/process/server.rs", "use crate::{admin, bench, broker, worker};", 0),
        ] {
            assert_eq!(problems(floor_problems, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn find_rooms_that_name_those_beside_them() {
        for (path, text, expected) in [
            ("src/broker/hub.rs", "use crate::broker::history;", 0),
            ("src/broker/hub.rs", "use crate::admin::Overview;", 1),
            ("src/worker/core.rs", "use crate::broker::BrokerCounters;", 1),
            ("src/worker/core.rs", "let x = crate::bench::run();", 1),
            ("src/admin/mod.rs", "use crate::broker::BrokerCounters;", 0),
            ("src/admin/mod.rs", "use crate::{broker::BrokerCounters, ground};", 0),
            ("src/admin/mod.rs", "use crate::broker::{self, BrokerCounters};", 1),
            ("src/admin/mod.rs", "use crate::broker::{BrokerCountersOfOld, run};", 2),
            ("src/admin/mod.rs", "use crate::worker::Mailbox;", 1),
            ("src/bench/floor.rs", "use crate::broker::{self, BrokerOptions};", 0),
            ("src/bench/floor.rs", "use crate::worker::Setup;", 1),
        ] {
            assert_eq!(problems(floor_problems, path, text), expected, "{path}: {text}");
        }
    }

    fn circles(files: &[(&str, &str)]) -> usize {
        let file = |(path, text): &(&str, &str)| File {
            path: format!("src/{path}"),
            text: (*text).to_owned(),
        };
        circle_problems(&files.iter().map(file).collect::<Vec<_>>()).len()
    }

    #[test]
    fn find_files_that_import_each_other() {
        for (one, other, expected) in [
            ("use super::b::B;", "use super::a::A;", 1),
            ("use crate::x::b::B;", "use super::a;", 1),
            ("use super::{\n    a::A,\n    b::{B, C},\n};", "use super::{C, a};", 1),
            ("pub use super::b::B;", "fn f() -> crate::x::a::A {}", 1),
            ("use crate::x::{self, b};", "use crate::{x::a::*, y};", 1),
            ("use super::b::B;", "use super::A;", 0),
            ("use super::b::B;", "use std::a::A;", 0),
            ("use super::b::B;", "// Not super::a::A, which needs this.", 0),
            ("use super::b::B;", "use super::super::a::A;", 0),
            ("use super::b::B;", "#[cfg(test)]\nmod tests {\n    use crate::x::a;\n}\n", 0),
            ("use super::b::B;", "#[cfg(test)]\nuse super::a::A;\nuse super::a::B;", 1),
        ] {
            let files = [("x/mod.rs", ""), ("x/a.rs", one), ("x/b.rs", other), ("a.rs", "")];
            assert_eq!(circles(&files), expected, "{one} {other}");
        }
    }

    #[test]
    fn find_circles_of_a_module_with_all_that_is_inside_it() {
        let (a, b, b_from_inside) =
            ("use super::a::A;", "use super::b::B;", "use super::super::b::B;");
        for (files, expected) in [
            ([("x.rs", "use x::a;"), ("x/a.rs", "use super::X;"), ("x/b.rs", a)], 0),
            ([("x/a.rs", ""), ("x/a/c.rs", b_from_inside), ("x/b.rs", a)], 1),
            ([("x/a.rs", b), ("x/a/c.rs", b_from_inside), ("x/b.rs", "")], 0),
            ([("x/a/mod.rs", ""), ("x/a/tests.rs", b_from_inside), ("x/b.rs", a)], 0),
            ([("x/a.rs", b), ("x/b.rs", "use super::c::C;"), ("x/c.rs", "use super::b::D;")], 1),
            ([("x/a.rs", b), ("x/b.rs", ""), ("x/c.rs", a)], 0),
        ] {
            assert_eq!(circles(&files), expected, "{files:?}");
        }
    }

    #[test]
    fn find_sharp_tools_elsewhere() {
        for (path, text, expected) in [
            ("src/sys/runtime.rs", "use monoio::net::TcpStream;", 0),
            ("src/io/listener.rs", "use monoio::net::TcpStream;", 1),
            ("src/io/listener.rs", "/// Why monoio is not used: …", 0),
            ("src/sys/raw.rs", "unsafe { libc::close(1) }", 0),
            ("src/sys/socket.rs", "unsafe { libc::close(1) }", 1),
            ("src/lib.rs", "#![deny(unsafe_code)]", 0),
            ("src/bytes/http.rs", "use httparse::Request;", 0),
            ("src/bytes/http/tests.rs", "use httparse::Request;", 0),
            ("src/bytes/target.rs", "let s = \"http://x\"; httparse::parse();", 1),
            ("src/bytes/resp.rs", "use redis_protocol::resp3;", 0),
            ("src/io/link.rs", "use redis_protocol::resp3;", 1),
        ] {
            assert_eq!(problems(drawer_problems, path, text), expected, "{path}: {text}");
        }
    }

    #[test]
    fn find_long_lines() {
        let of = |columns: usize| format!("//! {}\n", "ü".repeat(columns - 4));
        assert_eq!(problems(length_problems, "src/a.rs", &of(COLUMNS_MAX)), 0);
        assert_eq!(problems(length_problems, "src/a.rs", &of(COLUMNS_MAX + 1)), 1);
    }

    #[test]
    fn find_long_files() {
        let of = |lines: usize| "//! x\n".repeat(lines);
        assert_eq!(problems(length_problems, "src/a.rs", &of(FILE_LINES_MAX)), 0);
        assert_eq!(problems(length_problems, "src/a.rs", &of(FILE_LINES_MAX + 1)), 1);
    }

    #[test]
    fn find_long_functions() {
        let heads = [
            "fn name() {",
            "    pub(crate) async fn name(&self) -> u8 {",
            "    const fn name<T>(\n        long: T,\n    ) -> u8 {",
        ];
        for head in heads {
            let indentation = &head[..head.len() - head.trim_start().len()];
            let of = |lines: usize| {
                let body = format!("{indentation}    if x {{ y(); }}\n");
                let inner = lines - head.lines().count() - 1;
                format!("{head}\n{}{indentation}}}\n\nstruct S;\n", body.repeat(inner))
            };
            assert_eq!(problems(length_problems, "src/a.rs", &of(FUNCTION_LINES_MAX)), 0, "{head}");
            let too_long = of(FUNCTION_LINES_MAX + 1);
            assert_eq!(problems(length_problems, "src/a.rs", &too_long), 1, "{head}");
        }
        let short = "trait T {\n    fn a();\n    fn b(\n        c: u8,\n    );\n    fn d() {}\n}\n";
        let text = short.to_owned() + &"struct S;\n".repeat(100);
        assert_eq!(problems(length_problems, "src/a.rs", &text), 0);
    }

    #[test]
    fn find_files_without_a_header() {
        assert_eq!(problems(header_problems, "src/a.rs", "//! What it is.\n"), 0);
        assert_eq!(problems(header_problems, "src/a.rs", "use std::fs;\n//! Late.\n"), 1);
        assert_eq!(problems(header_problems, "src/a.rs", ""), 1);
    }

    #[test]
    fn find_unfinished_work() {
        for word in UNFINISHED {
            let text = format!("fn a() {{\n    // {word} later\n}}\n");
            assert_eq!(problems(unfinished_problems, "src/a.rs", &text), 1, "{word}");
        }
        assert_eq!(
            problems(unfinished_problems, "src/a.rs", "// What is to do here, is done.\n"),
            0
        );
    }

    #[test]
    fn find_download_addresses() {
        let text = format!("{DOWNLOAD_ADDRESS}: \"https://example.org/x\"");
        assert_eq!(problems(download_problems, "package-lock.json", &text), 1);
        assert_eq!(problems(download_problems, "README.md", "https://example.org/"), 0);
    }
}
