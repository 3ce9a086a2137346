//! The files in `deploy/` and the commands in the documents are true: every command line is one that the program takes, every setting is one
//! that it knows and can use, and ports and names fit each other. Neither Docker nor systemd is asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Runs the program with these variables and no others of its own.
fn weft(arguments: &[&str], environment: &BTreeMap<String, String>) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WEFT_")) {
        command.env_remove(name);
    }
    command.args(arguments).envs(environment).output().unwrap()
}

/// What is wrong with this command, if the program does not take it and all its flags. Help ends the parsing, so required values may be
/// missing, and nothing is done.
fn fault(words: &[&str]) -> Option<String> {
    let output = weft(&[words, &["--help"]].concat(), &BTreeMap::new());
    let error = String::from_utf8_lossy(&output.stderr);
    (!output.status.success()).then(|| format!("weft {}\n{error}", words.join(" ")))
}

fn assert_known(words: &[&str], whence: &str) {
    assert_eq!(fault(words), None, "{whence}");
}

/// The words of a shell command, up to what belongs to the shell; single quotes hold words together.
fn words(line: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for (at, part) in line.split('\'').enumerate() {
        if at % 2 == 1 {
            words.push(part);
            continue;
        }
        for word in part.split_whitespace() {
            if word.starts_with(['#', '&', '|', '>', '<', ';']) {
                return words;
            }
            words.push(word.trim_end_matches(';'));
            if word.ends_with(';') {
                return words;
            }
        }
    }
    words
}

/// Calls of the program in shell text: lines that begin with it, after `sudo -u weft` if need be. Those that take in what another command
/// prints are left out.
fn calls(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let lines = joined.lines().map(|line| line.trim_start_matches(['#', ' ']));
    let lines = lines.map(|line| line.strip_prefix("sudo -u weft ").unwrap_or(line));
    let calls = lines.filter_map(|line| line.strip_prefix("weft "));
    calls.filter(|call| !call.contains("$(")).map(str::to_owned).collect()
}

/// The text between these fences of a page.
fn shell_blocks(page: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in page.lines() {
        match line.trim() {
            "```sh" => inside = true,
            "```" => inside = false,
            _ if inside => {
                text.push_str(line.trim());
                text.push('\n');
            }
            _ => {}
        }
    }
    text
}

/// The strings of a list in JSON's form, such as `["node", "--data", "/data"]`.
fn list(text: &str) -> Vec<String> {
    serde_json::from_str(text.trim()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// What stands behind `KEY` on each line of `text` that begins with it.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(key)).collect()
}

#[test]
fn every_command_in_the_documents_is_one_that_the_program_takes() {
    let mut pages = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            pages.push(format!("docs/{name}"));
        }
    }
    let (mut seen, mut faults) = (0, Vec::new());
    for page in &pages {
        for call in calls(&shell_blocks(&read(page))) {
            faults.extend(fault(&words(&call)).map(|fault| format!("{page}: {fault}")));
            seen += 1;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(seen > 20, "only {seen} commands seen");
}

#[test]
fn the_unit_and_the_image_run_commands_that_the_program_takes() {
    let unit = read("deploy/weft.service");
    let starts = values(&unit, "ExecStart=/usr/local/bin/weft ");
    let [start] = starts[..] else { panic!("{starts:?}") };
    assert_known(&words(start), "weft.service");
    let in_comments = calls(&unit);
    assert!(!in_comments.is_empty());
    for call in in_comments {
        assert_known(&words(&call), "weft.service");
    }
    // The unit gives the node longer than the node gives itself.
    let grace = weft_node::config::Config::default().stop_grace_ms / 1000;
    let timeout: u64 = values(&unit, "TimeoutStopSec=")[0].parse().unwrap();
    assert!(timeout >= 3 * grace, "{timeout} s for a node that takes {grace} s and closes its log");
    // What the unit may write to is where its node's data are.
    let written = values(&unit, "ReadWritePaths=")[0];
    assert!(start.contains(&format!("--data {written}/")), "{start}: {written}");

    let image = read("deploy/Dockerfile");
    assert_eq!(list(values(&image, "ENTRYPOINT ")[0]), ["weft"]);
    let command = list(values(&image, "CMD ")[0]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    assert_known(&command, "Dockerfile");
    let volume = values(&image, "VOLUME ")[0];
    assert!(command[2].starts_with(volume), "{command:?}: the data are not in the volume {volume}");
    for call in values(&image, "#   docker run ") {
        let (options, call) = call.split_once(" weft").unwrap();
        assert_known(&words(call), "Dockerfile");
        for setting in options.split(" -e ").skip(1) {
            let (name, value) = setting.split_whitespace().next().unwrap().split_once('=').unwrap();
            assert_usable(&BTreeMap::from([(name.to_owned(), value.to_owned())]), &command);
        }
    }
}

/// A node would take this environment with this command line.
fn assert_usable(environment: &BTreeMap<String, String>, command: &[&str]) {
    for name in environment.keys() {
        let known = weft_node::config::KEYS.iter().any(|key| key.env == name);
        assert!(known || ["WEFT_LOG", "WEFT_LOG_FORMAT"].contains(&name.as_str()), "no setting {name}");
    }
    // `config` takes what `node` takes, and shows it.
    let arguments = [&["config"], &command[1..]].concat();
    let output = weft(&arguments, environment);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{environment:?}\n{err}");
    for name in environment.keys() {
        assert!(out.contains(name.as_str()), "{name} is not the source of any setting:\n{out}");
    }
}

#[test]
fn the_composed_nodes_have_settings_ports_and_peers_that_fit_each_other() {
    let compose = read("deploy/compose.yaml");
    let image = read("deploy/Dockerfile");
    let commands = values(&compose, "command: ");
    assert_eq!(commands.len(), 1, "one for all nodes");
    let command = list(commands[0]);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    assert_known(&command, "compose.yaml");
    for call in calls(&compose) {
        assert_known(&words(&call), "compose.yaml");
    }

    // The list of peers, from a cluster that is made as the file says, by the script that it names.
    let dir = tempfile::tempdir().unwrap();
    let cluster = dir.path().join("cluster");
    let made =
        weft(&["cluster", "init", "--nodes", "4", "--data", cluster.to_str().unwrap()], &BTreeMap::new());
    assert!(made.status.success(), "{made:?}");
    let mut script = Command::new("bash");
    script
        .arg(root().join("deploy/compose-peers.sh"))
        .arg(&cluster)
        .env("WEFT_BIN", env!("CARGO_BIN_EXE_weft"));
    let peers = script.output().unwrap();
    assert!(peers.status.success(), "{peers:?}");
    let peers = String::from_utf8(peers.stdout).unwrap();
    let file = dir.path().join("peers");
    std::fs::write(&file, &peers).unwrap();

    // What all have in common, in the container.
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for line in compose.lines().filter(|line| line.starts_with("    WEFT_")) {
        let (name, value) = line.trim().split_once(": ").unwrap();
        environment.insert(name.to_owned(), value.to_owned());
    }
    let list_inside = environment.insert("WEFT_PEERS".to_owned(), file.to_str().unwrap().to_owned()).unwrap();
    let port = |name: &str| environment[name].rsplit(':').next().unwrap().to_owned();
    let (clients, nodes, http) = (port("WEFT_LISTEN"), port("WEFT_PEER_LISTEN"), port("WEFT_HTTP"));
    let exposed = format!("{clients}/udp {nodes}/udp {http}/tcp");
    assert_eq!(values(&image, "EXPOSE "), [exposed]);

    let names: Vec<&str> =
        values(&compose, "node-").into_iter().map(|rest| rest.trim_end_matches(':')).collect();
    assert_eq!(names, ["0", "1", "2", "3"]);
    assert_eq!(peers.lines().count(), names.len());
    let (mounts, ports) = (values(&compose, "volumes: "), values(&compose, "ports: "));
    let own = values(&compose, "environment: { <<: *environment, ");
    for (number, peer) in names.iter().zip(peers.lines()) {
        let at: usize = number.parse().unwrap();
        assert!(peer.ends_with(&format!("@node-{number}:{nodes}")), "{peer}");
        let (key, name) = own[at].trim_end_matches(" }").split_once(": ").unwrap();
        assert_eq!((key, name), ("WEFT_NAME", format!("node-{number}").as_str()));
        let mounts = list(mounts[at]);
        assert!(mounts[0].ends_with(&format!("/node-{number}:{}", command[2])), "{mounts:?}");
        assert!(mounts[1].ends_with(&format!(":{list_inside}:ro")), "{mounts:?}");
        let ports = list(ports[at]);
        assert!(ports[0].ends_with(&format!(":{clients}/udp")) && ports[1].ends_with(&format!(":{http}")));

        // With its own directory in place of the container's.
        let mut environment = environment.clone();
        environment.insert(key.to_owned(), name.to_owned());
        let data = cluster.join(format!("node-{number}"));
        assert_usable(&environment, &[command[0], command[1], data.to_str().unwrap()]);
    }
}
