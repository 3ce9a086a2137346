//! Layers of settings: which one wins, what is said about each value, and what a wrong one is told.

use std::path::PathBuf;

use weft_node::cli::Globals;
use weft_node::config::{self, Config, ConfigArgs, Loaded, Source};

use super::{weft, weft_with};

/// Loads with an environment and flags given here.
fn load(
    file: Option<&str>,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Loaded, config::ConfigError> {
    let directory = tempfile::tempdir().unwrap();
    let path = file.map(|text| {
        let path = directory.path().join("weft.toml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let args = ConfigArgs {
        // Without a file, a directory that has none: the default one may lie in the current directory.
        file: path,
        values: if file.is_some() {
            flags.iter().map(|(name, text)| (*name, (*text).to_owned())).collect()
        } else {
            let data = ("data", directory.path().to_string_lossy().into_owned());
            std::iter::once(data)
                .chain(flags.iter().map(|(name, text)| (*name, (*text).to_owned())))
                .collect()
        },
    };
    let environment: Vec<(String, String)> =
        environment.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
    config::load_with(&args, &Globals::default(), &|name| {
        environment.iter().find(|(known, _)| known == name).map(|(_, text)| text.clone())
    })
}

fn source(loaded: &Loaded, name: &str) -> Source {
    loaded.source(config::Key::find(name).unwrap())
}

#[test]
fn each_layer_wins_over_those_before_it_and_is_named_as_the_source() {
    let file = "batch_linger_us = 1000\nconnections_max = 10\nqueue_bytes_max = \"64MiB\"\n";
    let environment = [("WEFT_BATCH_LINGER_US", "3ms"), ("WEFT_CONNECTIONS_MAX", "20")];
    let loaded = load(Some(file), &environment, &[("batch_linger_us", "4ms")]).unwrap();
    assert_eq!(loaded.config.batch_linger_us, 4_000);
    assert_eq!(loaded.config.connections_max, 20);
    assert_eq!(loaded.config.queue_bytes_max, 64 << 20);
    assert_eq!(loaded.config.tips_max, Config::default().tips_max);
    assert_eq!(source(&loaded, "batch_linger_us"), Source::Flag("batch-linger-us"));
    assert_eq!(source(&loaded, "connections_max"), Source::Env("WEFT_CONNECTIONS_MAX"));
    assert!(matches!(source(&loaded, "queue_bytes_max"), Source::File(_, 3)));
    assert_eq!(source(&loaded, "tips_max"), Source::Default);
}

#[test]
fn without_any_layer_the_settings_are_the_defaults() {
    let loaded = load(None, &[], &[]).unwrap();
    assert_eq!(loaded.config, Config { data: loaded.config.data.clone(), ..Config::default() });
}

#[test]
fn an_empty_environment_variable_is_an_unset_one() {
    let loaded = load(None, &[("WEFT_TIPS_MAX", ""), ("WEFT_CONFIG", "")], &[]).unwrap();
    assert_eq!(source(&loaded, "tips_max"), Source::Default);
}

#[test]
fn an_unknown_key_is_an_error_with_its_line_and_the_nearest_name() {
    let error =
        load(Some("# settings\ntips_max = 16\n\nbatch_linger = 5\n"), &[], &[]).unwrap_err().to_string();
    assert!(error.contains("weft.toml:4: unknown key `batch_linger`"), "{error}");
    assert!(error.contains("did you mean `batch_linger_us`?"), "{error}");
    let error = load(Some("colour = 5\n"), &[], &[]).unwrap_err().to_string();
    assert!(error.ends_with("unknown key `colour`"), "nothing is near: {error}");
}

#[test]
fn a_value_out_of_its_limits_is_told_what_was_got_and_what_the_limits_are() {
    let error = load(None, &[("WEFT_BATCH_LINGER_US", "2s")], &[]).unwrap_err().to_string();
    let expected = "environment WEFT_BATCH_LINGER_US: `batch_linger_us` is 2s, the limits are 0 to 1s";
    assert_eq!(error, expected);
}

#[test]
fn values_of_the_wrong_form_are_refused_wherever_they_come_from() {
    let cases: [(&str, &'static str, &str); 10] = [
        ("queue_bytes_max = \"lots\"", "queue_bytes_max", "lots"),
        ("queue_bytes_max = -5", "queue_bytes_max", "-5"),
        ("queue_bytes_max = 1.5", "queue_bytes_max", "1.5"),
        ("listen = \"localhost\"", "listen", "localhost"),
        ("ack_level = \"forever\"", "ack_level", "forever"),
        ("tip_alpha = \"nan\"", "tip_alpha", "nan"),
        ("tip_alpha = 101", "tip_alpha", "101"),
        ("name = \"\"", "name", ""),
        ("verifier = \"AVX 2\"", "verifier", "AVX 2"),
        ("gpu = \"auto,1\"", "gpu", "auto,1"),
    ];
    for (line, name, text) in cases {
        let in_file = load(Some(line), &[], &[]).unwrap_err().to_string();
        assert!(in_file.contains("weft.toml:1") && in_file.contains(name), "{in_file}");
        let as_flag = load(None, &[], &[(name, text)]).unwrap_err().to_string();
        assert!(as_flag.contains("flag --") && as_flag.contains(name), "{as_flag}");
    }
    for line in ["listen = [1]", "listen = {a = 1}", "listen = 2026-01-01"] {
        let error = load(Some(line), &[], &[]).unwrap_err().to_string();
        assert!(error.contains("need a string or a number"), "{line}: {error}");
    }
}

#[test]
fn settings_that_do_not_go_together_are_refused_with_both_sources() {
    let error = load(None, &[("WEFT_QUEUE_BYTES_MAX", "8MiB")], &[("connection_bytes_max", "16MiB")])
        .unwrap_err()
        .to_string();
    for part in ["16MiB (flag --connection-bytes-max)", "8MiB (environment WEFT_QUEUE_BYTES_MAX)"] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_refused_with_its_line() {
    let error = load(Some("tips_max = 16\nlisten =\n"), &[], &[]).unwrap_err().to_string();
    assert!(error.contains("weft.toml:2"), "{error}");
    let error = load(Some("tips_max = 16\ntips_max = 17\n"), &[], &[]).unwrap_err().to_string();
    assert!(error.contains("weft.toml:2"), "{error}");
}

#[test]
fn a_named_file_that_is_missing_or_far_too_long_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("none.toml");
    weft(&["config", "--config", path.to_str().unwrap()]).expect(2);
    std::fs::write(&path, "#".repeat(1 << 20 | 1)).unwrap();
    let ran = weft(&["config", "--config", path.to_str().unwrap()]).expect(2);
    assert!(ran.err.contains("1048577 bytes, the limit is 1048576"), "{}", ran.err);
}

#[test]
fn the_file_of_a_data_directory_is_read_by_itself_and_cannot_name_another_directory() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().to_str().unwrap();
    std::fs::write(directory.path().join("weft.toml"), "tips_max = 99\n").unwrap();
    let report = weft(&["config", "--data", data, "--json"]).expect(0).json();
    assert_eq!(report["settings"]["tips_max"]["value"], 99);
    let source = report["settings"]["tips_max"]["source"].as_str().unwrap().to_owned();
    assert!(source.ends_with("weft.toml:1"), "{source}");
    assert_eq!(report["settings"]["data"]["source"], "flag --data");

    std::fs::write(directory.path().join("weft.toml"), "data = \"/elsewhere\"\n").unwrap();
    weft(&["config", "--data", data]).expect(2);
}

#[test]
fn the_printed_settings_are_a_file_that_gives_the_same_settings() {
    let odd = [
        ("name", "north \"1\" \\ #"),
        ("http", "[::1]:80"),
        ("tip_selection", "mcmc"),
        ("tip_alpha", "0.25"),
        ("clock_ahead_us_max", "90s"),
        ("verify_threads", "3"),
        ("gpu", "0,Radeon RX"),
        ("free_space_watermark_bytes", "0"),
        ("log_format", "json"),
        ("log", "info,weft_net=debug"),
    ];
    let first = load(None, &[], &odd).unwrap();
    let text = first.to_toml();
    let second = load(Some(&text), &[], &[]).unwrap_or_else(|error| panic!("{error}\n{text}"));
    assert_eq!(first.config, second.config);
    // Every value now has a line of the file as its source.
    assert!(config::KEYS.iter().all(|key| matches!(second.source(key), Source::File(..))));
}

#[test]
fn the_template_explains_every_setting_and_changes_none_even_uncommented() {
    let template = config::template();
    let loaded = load(Some(&template), &[], &[]).unwrap();
    assert_eq!(loaded.config, Config::default());
    let uncommented: String = template
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
        .fold(String::new(), |text, line| text + line + "\n");
    let loaded = load(Some(&uncommented), &[], &[]).unwrap_or_else(|error| panic!("{error}\n{uncommented}"));
    assert_eq!(loaded.config, Config::default());
    let from_file = config::KEYS.iter().filter(|key| matches!(loaded.source(key), Source::File(..))).count();
    assert_eq!(from_file, config::KEYS.len() - 1, "all but `data` stand in the template");
}

#[test]
fn every_key_has_one_name_in_three_spellings_and_its_default_is_within_its_limits() {
    for key in config::KEYS {
        assert_eq!(key.flag, key.name.replace('_', "-"));
        assert_eq!(key.env, format!("WEFT_{}", key.name.to_uppercase()));
        let default = match key.value(&Config::default()) {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        load(None, &[(key.env, &default)], &[])
            .unwrap_or_else(|error| panic!("default of {}: {error}", key.name));
    }
    let names: std::collections::HashSet<_> = config::KEYS.iter().map(|key| key.name).collect();
    assert_eq!(names.len(), config::KEYS.len());
}

#[test]
fn the_command_takes_what_the_node_takes_and_names_each_source() {
    let directory = tempfile::tempdir().unwrap();
    let file: PathBuf = directory.path().join("settings.toml");
    std::fs::write(&file, "\nqueue_bytes_max = \"64MiB\"\n").unwrap();
    let ran = weft_with(
        &["config", "--config", file.to_str().unwrap(), "--batch-linger-us", "5ms", "--log", "debug"],
        &[("WEFT_ACK_LEVEL", "written")],
        "",
    )
    .expect(0);
    let line = |name: &str| {
        let line = ran.out.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(line("batch_linger_us"), "batch_linger_us = 5000 # 5ms, flag --batch-linger-us");
    assert_eq!(line("ack_level"), "ack_level = \"written\" # environment WEFT_ACK_LEVEL");
    assert_eq!(line("queue_bytes_max"), format!("queue_bytes_max = 67108864 # 64MiB, {}:2", file.display()));
    assert_eq!(line("listen"), "listen = \"127.0.0.1:7272\" # default");
    assert_eq!(line("log "), "log = \"debug\" # flag --log");
}

#[test]
fn a_mistyped_environment_variable_is_pointed_out() {
    let ran = weft_with(&["config"], &[("WEFT_TIP_MAX", "5")], "").expect(0);
    assert!(ran.err.contains("WEFT_TIP_MAX is no setting; did you mean WEFT_TIPS_MAX?"), "{}", ran.err);
}
