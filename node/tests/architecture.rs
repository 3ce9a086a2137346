//! The architecture page is true: which crate uses which, where `unsafe` may stand, and how files begin.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom, by the design. Crates that are not in the workspace yet stand here already.
const MAY_USE: &[(&str, &[&str])] = &[
    ("weft-core", &[]),
    ("weft-crypto", &[]),
    ("weft-shaders", &[]),
    ("weft-gpu", &["weft-crypto", "weft-shaders"]),
    ("weft-storage", &["weft-core"]),
    ("weft-net", &["weft-core"]),
    ("weft-loadgen", &["weft-core", "weft-crypto", "weft-net"]),
    ("weft-sim", &["weft-core", "weft-crypto", "weft-storage", "weft-net", "weft-node"]),
    (
        "weft-node",
        &["weft-core", "weft-crypto", "weft-shaders", "weft-gpu", "weft-storage", "weft-net", "weft-loadgen"],
    ),
    (
        "weft-benches",
        &[
            "weft-core",
            "weft-crypto",
            "weft-shaders",
            "weft-gpu",
            "weft-storage",
            "weft-net",
            "weft-loadgen",
            "weft-node",
        ],
    ),
];

/// Where `unsafe` may stand: files, and folders ending in `/`.
const UNSAFE_ALLOWED: &[&str] = &[
    "storage/src/map.rs",
    "loadgen/src/pool/map.rs",
    "crypto/src/simd/",
    "crypto/examples/constant_time.rs",
    "gpu/",
    "fuzz/",
];

/// Longest source file, lines. The house's own rule is shorter; this is where a test gets in the way.
const FILE_LINES_MAX: usize = 900;

/// Folders that hold no sources of ours.
const NOT_SOURCES: &[&str] = &["target", "corpus", "artifacts", "node_modules"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_path_buf()
}

/// Every crate of the workspace with its folder and the crates of the workspace it depends on, of any kind.
fn crates() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let text = |value: &serde_json::Value| value.as_str().expect("a string").to_owned();
    let names: BTreeSet<String> = packages.iter().map(|package| text(&package["name"])).collect();
    packages
        .iter()
        .map(|package| {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let folder = manifest.parent().expect("a folder").strip_prefix(root()).expect("inside");
            let uses = package["dependencies"].as_array().expect("dependencies");
            let own = text(&package["name"]);
            // A crate may name itself among its dev-dependencies, to test with a feature on.
            let uses = uses
                .iter()
                .map(|dependency| text(&dependency["name"]))
                .filter(|name| names.contains(name) && *name != own)
                .collect();
            (own, (format!("{}/", folder.display()), uses))
        })
        .collect()
}

/// The rows of the crate table in `docs/architecture.md`: crate, folder, crates it may use.
fn documented() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).expect("the page is there");
    let code =
        |cell: &str| -> Vec<String> { cell.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim().trim_matches('|').split('|').collect();
            let [folder, name, _, uses] = cells.as_slice() else { return None };
            let name = code(name).into_iter().next().filter(|name| name.starts_with("weft-"))?;
            Some((name, (code(folder).into_iter().next()?, code(uses).into_iter().collect())))
        })
        .collect()
}

#[test]
fn every_crate_uses_only_the_crates_it_may_use() {
    let crates = crates();
    assert!(crates.len() >= 8, "only {} crates seen: the test looks at the wrong thing", crates.len());
    for (name, (_, uses)) in &crates {
        let allowed = MAY_USE.iter().find(|(known, _)| known == name);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{name} has no row in MAY_USE: which crates may it use?"));
        for used in uses {
            assert!(
                allowed.contains(&used.as_str()),
                "{name} must not depend on {used}; it may use {allowed:?}"
            );
        }
    }
}

#[test]
fn the_architecture_page_has_a_true_row_for_every_crate_and_no_other() {
    let (crates, documented) = (crates(), documented());
    for (name, (folder, uses)) in &crates {
        let (page_folder, page_uses) = documented
            .get(name)
            .unwrap_or_else(|| panic!("docs/architecture.md has no row for {name} in its table of crates"));
        assert_eq!(page_folder, folder, "folder of {name} in docs/architecture.md");
        let missing: Vec<_> = uses.difference(page_uses).collect();
        assert!(missing.is_empty(), "docs/architecture.md does not say that {name} uses {missing:?}");
        let (_, allowed) =
            MAY_USE.iter().find(|(known, _)| known == name).expect("checked by the other test");
        let surplus: Vec<_> = page_uses.iter().filter(|used| !allowed.contains(&used.as_str())).collect();
        assert!(surplus.is_empty(), "docs/architecture.md lets {name} use {surplus:?}, the design does not");
    }
    let gone: Vec<_> = documented.keys().filter(|name| !crates.contains_key(*name)).collect();
    assert!(gone.is_empty(), "docs/architecture.md has rows for {gone:?}, which are not in the workspace");
}

/// Every `.rs` file of the repository, as a path from its root, with its text.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).expect("a folder that can be listed") {
            let entry = entry.expect("an entry");
            let name = entry.file_name().to_string_lossy().into_owned();
            let kind = entry.file_type().expect("a type");
            if kind.is_dir() && !name.starts_with('.') && !NOT_SOURCES.contains(&name.as_str()) {
                walk(&entry.path(), found);
            } else if kind.is_file() && name.ends_with(".rs") {
                found.push(entry.path());
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), &mut found);
    found.sort();
    let relative = |path: &Path| path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
    found
        .iter()
        .map(|path| (relative(path), std::fs::read_to_string(path).expect("a source file is UTF-8")))
        .collect()
}

#[test]
fn every_source_file_begins_by_saying_what_it_owns() {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files seen: the test looks at the wrong thing", sources.len());
    let silent: Vec<_> =
        sources.iter().filter(|(_, text)| !text.starts_with("//!")).map(|(path, _)| path).collect();
    assert!(silent.is_empty(), "these files do not begin with //!: {silent:#?}");
}

#[test]
fn no_source_file_is_longer_than_a_reader_can_hold() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .collect();
    assert!(long.is_empty(), "these files have more than {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn unsafe_stands_only_where_the_architecture_page_allows_it() {
    let mut seen_allowed = false;
    // This file has the word in the strings that it tests its own search with.
    for (path, text) in sources().into_iter().filter(|(path, _)| path != "node/tests/architecture.rs") {
        let allowed = UNSAFE_ALLOWED
            .iter()
            .any(|place| if place.ends_with('/') { path.starts_with(place) } else { path == *place });
        for (number, line) in text.lines().enumerate() {
            if uses_unsafe(line) {
                assert!(allowed, "{path}:{} uses unsafe; only {UNSAFE_ALLOWED:?} may", number + 1);
                seen_allowed = true;
            }
        }
    }
    assert!(
        seen_allowed,
        "no unsafe found at all, not even in the memory map: the test looks at the wrong thing"
    );
}

/// Whether a line has the keyword `unsafe` as code: before a block, function, trait, impl, extern or attribute.
fn uses_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices("unsafe").any(|(start, word)| {
        let before = code[..start].chars().next_back();
        let after = code[start + word.len()..].trim_start();
        let whole =
            !before.is_some_and(|letter| letter.is_alphanumeric() || matches!(letter, '_' | '"' | '`'));
        whole && ["{", "fn ", "impl", "trait ", "extern", "("].iter().any(|next| after.starts_with(next))
    })
}

#[test]
fn the_search_for_unsafe_finds_code_and_not_words() {
    for code in [
        "let x = unsafe { y };",
        "unsafe fn f() {}",
        "unsafe impl Send for X {}",
        "#[unsafe(no_mangle)]",
        "pub unsafe extern \"C\" fn f();",
    ] {
        assert!(uses_unsafe(code), "{code}");
    }
    for text in [
        "#![forbid(unsafe_code)]",
        "// unsafe { }",
        "/// the unsafe fn",
        "unsafe_op_in_unsafe_fn = 1",
        "an \"unsafe fn\"",
    ] {
        assert!(!uses_unsafe(text), "{text}");
    }
}
