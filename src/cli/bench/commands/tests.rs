use super::*;
use crate::cli::bench::{fixture, report, results::Results};

/// A file of results with one kind, in a folder that goes with the test.
fn example(folder: &Path, seed: u64) -> (PathBuf, Results) {
    let mut results = fixture::results(seed, 2, 20);
    results.hosts[0].runs[0].rows.retain(|row| row.kind == "msi");
    let path = folder.join(format!("{seed}.json"));
    file::write(&path, &results).unwrap();
    (path, results)
}

#[test]
fn a_budget_that_is_not_met_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (old, _) = example(folder.path(), 1);
    let compare = |budget: &str| {
        run(&ResultsCommand::Compare { old: old.clone(), new: old.clone(), budget: vec![budget.to_owned()] })
    };
    assert_eq!(compare("msi.p99 < 1.01x"), ExitCode::SUCCESS);
    assert_eq!(compare("msi.p99 < 0.99x"), ExitCode::from(3));
    assert_eq!(compare("msi.p99 < fast"), ExitCode::from(2));
    assert_eq!(compare("mis.p99 < 2x"), ExitCode::from(2));
}

#[test]
fn merged_files_can_be_shown() {
    let folder = tempfile::tempdir().unwrap();
    let ((a, of_a), (b, of_b)) = (example(folder.path(), 1), example(folder.path(), 2));
    let (merged, page) = (folder.path().join("all.json"), folder.path().join("page"));
    assert_eq!(run(&ResultsCommand::Merge { files: vec![a, b], output: merged.clone() }), ExitCode::SUCCESS);
    assert_eq!(file::read(&merged).unwrap(), file::merge([of_a, of_b]));
    assert_eq!(run(&ResultsCommand::Report { file: merged.clone(), output: page.clone() }), ExitCode::SUCCESS);
    let written = std::fs::read_to_string(page.join("index.html")).unwrap();
    assert_eq!(written, report::page(&file::read(&merged).unwrap()).unwrap());
}
