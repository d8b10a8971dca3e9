//! What flags, file and defaults make together.

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    run: RunArguments,
}

/// The options of a command line with a file of this text (if it is not empty).
fn options(file: &str, flags: &[&str]) -> RunOptions {
    let path =
        std::env::temp_dir().join(format!("tophalf-options-{}-{:?}", std::process::id(), std::thread::current().id()));
    std::fs::write(&path, file).expect("the temporary directory is writable");
    let given = ["tophalf", "--config", path.to_str().expect("a plain path")];
    let line = Line::try_parse_from(given.iter().chain(flags)).expect("a good line");
    let options = line.run.options().expect("good options");
    std::fs::remove_file(&path).expect("just written");
    options
}

#[test]
fn every_option_has_its_key_and_can_be_read_back() {
    let text = config_file::print(&RunOptions::default()).expect("printable");
    assert_eq!(options(&text, &[]), RunOptions::default());
    let keys = keys();
    let printed: Vec<_> = text.lines().filter_map(|line| line.split(" = ").next()).collect();
    assert!(printed.iter().all(|key| keys.iter().any(|known| known == key)), "{printed:?} {keys:?}");
    // What has no default is not printed.
    let optional = |key: &&String| !printed.contains(&key.as_str());
    for key in keys.iter().filter(optional) {
        let as_text = format!("{key} = \"a\"\n");
        let as_list = format!("{key} = [\"a\"]\n");
        let as_number = format!("{key} = 1\n");
        let read = [as_text, as_list, as_number].into_iter().find(|text| toml::from_str::<RunOptions>(text).is_ok());
        let text = read.unwrap_or_else(|| panic!("{key} can't be given in a file"));
        assert_ne!(options(&text, &[]), RunOptions::default(), "the file's {key} is lost");
    }
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let file = "kernel = \"k\"\ncpus = 3\nmemory = 64\nno-reboot = true\nverbose = 2\nlog-format = \"json\"\n";
    let from_file = options(file, &[]);
    assert_eq!(
        from_file,
        RunOptions {
            kernel: Some("k".into()),
            cpus: Some(3),
            memory: "64".into(),
            no_reboot: true,
            verbose: 2,
            log_format: LogFormat::Json,
            ..RunOptions::default()
        }
    );
    let both = options(file, &["other", "--cpus", "1", "-v", "--log-format", "text"]);
    let expected = RunOptions {
        kernel: Some("other".into()),
        cpus: Some(1),
        verbose: 1,
        log_format: LogFormat::Text,
        ..from_file
    };
    assert_eq!(both, expected);
    assert_eq!(options("", &["-m", "1G"]), RunOptions { memory: "1G".into(), ..RunOptions::default() });
}

#[test]
fn text_with_anything_in_it_survives_printing() {
    let cmdline = "a=\"b\\c\" 'd' # e\t[f]\n\u{7f}é";
    let all = RunOptions { cmdline: Some(cmdline.into()), kernel: Some("/a b/\"c\"".into()), ..RunOptions::default() };
    let text = config_file::print(&all).expect("printable");
    assert_eq!(options(&text, &[]), all, "{text}");
}
