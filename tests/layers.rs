//! Keeps the architecture: who may use whom, what a layer never knows, where `unsafe` is, how long files are.
//!
//! docs/ARCHITECTURE.md says why. Each rule is a function from text to complaints, tested here on a small offence, and
//! then run on the whole tree.

#[path = "layers/code.rs"]
mod code;
#[path = "layers/manifest.rs"]
mod manifest;
#[path = "layers/tree.rs"]
mod tree;

use code::{code_only, find_word, line_of};
use manifest::Manifest;
use tree::Tree;

/// Each crate of ours and those of ours that it may use. What is not in this table may not exist.
const MAY_USE: [(&str, &[&str]); 13] = [
    ("fault", &[]),
    ("x86", &[]),
    ("sys", &[]),
    ("bottom_half", &["sys"]),
    ("irqchip", &["x86", "fault"]),
    ("kvm", &["x86", "sys"]),
    ("devices", &["x86", "sys", "irqchip", "bottom_half", "fault"]),
    ("vmm", &["x86", "sys", "bottom_half", "irqchip", "kvm", "devices", "fault"]),
    ("tophalf", &["vmm"]),
    ("xtask", &[]),
    ("fuzz", &["x86", "sys", "irqchip", "bottom_half", "kvm", "devices", "vmm"]),
    ("kernel", &["x86"]),
    ("suite", &["x86", "kernel"]),
];
/// Crates that bring threads, clocks, I/O or KVM: not for the layers that are pure.
const IMPURE: [&str; 7] =
    ["event-manager", "kvm-bindings", "kvm-ioctls", "libc", "linux-loader", "rustix", "vmm-sys-util"];
/// What the code of a layer never says.
const NEVER_KNOWS: [(&str, &[&str]); 4] = [
    ("fault", &["std", "kvm", "irqchip", "devices"]),
    ("x86", &["std", "kvm", "irqchip", "devices"]),
    (
        "irqchip",
        &["std::thread", "std::time", "Instant", "SystemTime", "kvm", "kvm_ioctls", "libc", "std::fs", "std::io"],
    ),
    ("devices", &["std::thread", "Instant", "SystemTime", "kvm", "kvm_ioctls", "std::fs"]),
];
/// What devices may know of the interrupt controllers.
const DEVICES_MAY_KNOW: [&str; 2] = ["line", "msi"];
/// What makes a thread, a timer or a pause: deferred work is `src/bottom_half`'s.
const WAITING: [&str; 8] = [
    "thread::spawn",
    "thread::Builder",
    "thread::scope",
    "thread::sleep",
    "TimerFd",
    "timerfd_create",
    "timer_create",
    "nanosleep",
];
/// Where that is all the same, and why.
const MAY_WAIT: [(&str, &str); 10] = [
    ("src/bottom_half/", "softirq threads, workers, their rescuer"),
    ("src/vmm/machine.rs", "the vCPUs' threads"),
    ("src/vmm/bottom_halves/deadlines.rs", "the one timer descriptor, for all timers"),
    ("src/sys/timer/", "a vCPU's timer, aimed at its thread in the guest"),
    ("src/vmm/exec/streams.rs", "the output of --exec, which outlives the machine"),
    ("src/vmm/agent/reports.rs", "the test agent's reports, which outlive the machine"),
    ("src/kvm/probe/", "vCPUs of the throw-away machine"),
    ("src/sys/pty/", "at the program's end, for a reader of the pseudo-terminal"),
    ("src/cli/top/", "between two looks at machines of other processes"),
    ("src/cli/stress/process.rs", "the test runner reads its child's output"),
];
/// Where `unsafe` may be.
const UNSAFE_HOMES: [&str; 4] = ["src/sys/", "src/kvm/", "src/bottom_half/", "guest/kernel/"];
/// How many lines above it a SAFETY comment may begin.
const SAFETY_WITHIN: usize = 8;
/// The longest source file, in lines.
const LONGEST: usize = 600;
/// What the top of the repository holds, besides files whose names begin with a dot.
const TOP_LEVEL: [&str; 10] =
    ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "rustfmt.toml", "docs", "guest", "src", "tests", "tools"];
/// Folders of a crate that cargo takes for targets.
const TARGET_FOLDERS: [&str; 4] = ["tests", "benches", "examples", "bin"];

fn report(rule: &str, complaints: Vec<String>) {
    assert!(complaints.is_empty(), "{rule}:\n  {}", complaints.join("\n  "));
}

/// Our crates that the crate uses and may not; or it is no crate that we know.
fn forbidden_uses(name: &str, manifest: &Manifest) -> Vec<String> {
    let Some((_, may_use)) = MAY_USE.iter().find(|(layer, _)| *layer == name) else {
        return vec![format!("{name} is no layer: put it in the table, and into docs/ARCHITECTURE.md")];
    };
    let ours = |package: &String| MAY_USE.iter().any(|(layer, _)| layer == package);
    let uses = manifest.dependencies().into_iter();
    uses.filter(ours).filter(|p| !may_use.contains(&p.as_str())).map(|p| format!("{name} uses {p}")).collect()
}

#[test]
fn a_crate_uses_only_layers_below_it() {
    let bad = Manifest::parse("[dependencies]\nx86 = {}\nkvm = {}\nlog = {}\n[dev-dependencies]\nvmm = {}\n");
    assert_eq!(forbidden_uses("irqchip", &bad), ["irqchip uses kvm"]);
    assert_eq!(forbidden_uses("gadgets", &bad).len(), 1);

    let tree = Tree::read();
    assert!(tree.manifests.len() > 7, "the crates were not found");
    report("layers", tree.manifests.iter().flat_map(|(name, _, manifest)| forbidden_uses(name, manifest)).collect());
}

fn impure_uses(name: &str, manifest: &Manifest) -> Vec<String> {
    let uses = manifest.dependencies().into_iter();
    uses.filter(|package| IMPURE.contains(&package.as_str())).map(|package| format!("{name} uses {package}")).collect()
}

#[test]
fn pure_layers_use_no_crate_that_waits_or_does_io() {
    let bad = Manifest::parse("[dependencies]\nlog = {}\n[target.'cfg(unix)'.dependencies]\nlibc = {}\n");
    assert_eq!(impure_uses("x86", &bad), ["x86 uses libc"]);

    let tree = Tree::read();
    let pure = tree.manifests.iter().filter(|(name, ..)| ["x86", "irqchip"].contains(&name.as_str()));
    report("pure layers", pure.flat_map(|(name, _, manifest)| impure_uses(name, manifest)).collect());
}

/// Words of `forbidden` in the code of a file, without its tests.
fn forbidden_words(path: &str, code: &str, forbidden: &[&str]) -> Vec<String> {
    let found = |word: &&str| {
        find_word(code, word)
            .into_iter()
            .map(|at| (*word).to_owned() + "@" + &line_of(code, at).to_string())
            .collect::<Vec<_>>()
    };
    forbidden.iter().flat_map(found).map(|what| format!("{path}: {what}")).collect()
}

#[test]
fn a_layer_does_not_mention_what_it_never_knows() {
    let bad = "use std::thread;\nfn f() -> std::time::Instant { kvm_like() }\n";
    let words = ["std::thread", "std::time", "Instant", "kvm"];
    assert_eq!(forbidden_words("f", bad, &words), ["f: std::thread@1", "f: std::time@2", "f: Instant@2"]);

    let tree = Tree::read();
    for (layer, forbidden) in NEVER_KNOWS {
        let folder = format!("src/{layer}/");
        let files = tree.in_folder(&folder).filter(|file| !file.is_test);
        let complaints = files.flat_map(|file| forbidden_words(&file.path, &file.product_code, forbidden)).collect();
        report(layer, complaints);
    }
}

/// Threads, timers and pauses of a file that may have none.
fn waits(path: &str, code: &str) -> Vec<String> {
    let may = MAY_WAIT.iter().any(|(place, _)| path.starts_with(place));
    if may { Vec::new() } else { forbidden_words(path, code, &WAITING) }
}

#[test]
fn deferred_work_is_the_bottom_halves() {
    let bad = "fn f() { std::thread::spawn(g); thread::sleep(d) }
let t = TimerFd::new();
";
    assert_eq!(waits("src/vmm/a.rs", bad).len(), 3);
    assert!(waits("src/vmm/machine.rs", bad).is_empty());

    let tree = Tree::read();
    for (place, why) in MAY_WAIT {
        let uses = tree.sources.iter().filter(|file| file.path.starts_with(place));
        let found = uses.map(|file| forbidden_words(&file.path, &file.product_code, &WAITING).len()).sum::<usize>();
        assert!(found > 0, "{place} is in the table ({why}) and does nothing of the kind");
    }
    let files =
        tree.in_folder("src/").filter(|file| !file.is_test && !file.path.starts_with("src/bottom_half/compare/"));
    report("threads and timers", files.flat_map(|file| waits(&file.path, &file.product_code)).collect());
}

/// Modules of irqchip that a device's code names, beyond the line and MSI handles.
fn chips_known(path: &str, code: &str) -> Vec<String> {
    let allowed = |rest: &str| {
        DEVICES_MAY_KNOW.iter().any(|module| {
            rest.strip_prefix(module).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
        })
    };
    let bad = find_word(code, "irqchip").into_iter().filter(|&at| {
        let rest = &code[at + "irqchip".len()..];
        !rest.strip_prefix("::").is_some_and(allowed)
    });
    bad.map(|at| format!("{path}:{} knows more of irqchip than a line", line_of(code, at))).collect()
}

#[test]
fn a_device_knows_its_line_and_no_controller() {
    let bad =
        "use irqchip::line::Line;\nuse irqchip::pic::PicPair;\nuse irqchip::{line, ioapic};\nuse irqchip::lines;\n";
    assert_eq!(chips_known("d", bad).len(), 3);

    let tree = Tree::read();
    let files: Vec<_> = tree.in_folder("src/devices/").filter(|file| !file.is_test).collect();
    assert!(files.iter().any(|file| file.product_code.contains("irqchip::line")), "no device has a line");
    report("devices", files.iter().flat_map(|file| chips_known(&file.path, &file.product_code)).collect());
}

/// `unsafe` outside its homes, or without a SAFETY comment.
fn unsafe_offences(path: &str, source: &str) -> Vec<String> {
    let code = code_only(source);
    let lines: Vec<_> = source.lines().collect();
    let mut complaints = Vec::new();
    for at in find_word(&code, "unsafe") {
        let line = line_of(&code, at);
        if !UNSAFE_HOMES.iter().any(|home| path.starts_with(home)) {
            complaints.push(format!("{path}:{line}: unsafe outside its homes"));
        }
        // Attributes (`#[unsafe(naked)]`) and declarations of what other code defines: the uses are what has to be argued.
        let declares = |text: &str| text.contains("unsafe extern") && !text.contains(" fn ");
        if code[..at].ends_with("#[") || declares(lines[line - 1]) {
            continue;
        }
        let near = &lines[line.saturating_sub(SAFETY_WITHIN + 1)..line];
        if !near.iter().any(|text| text.contains("// SAFETY:") || text.contains("/// # Safety")) {
            complaints.push(format!("{path}:{line}: unsafe without a SAFETY comment"));
        }
    }
    complaints
}

#[test]
fn unsafe_is_at_home_and_says_why_it_is_sound() {
    let source = "// SAFETY: it is.\nunsafe { f() }\n// unsafe\n";
    assert!(unsafe_offences("src/sys/a.rs", source).is_empty());
    assert_eq!(unsafe_offences("src/vmm/a.rs", source), ["src/vmm/a.rs:2: unsafe outside its homes"]);
    let declared = "#[unsafe(naked)]\nunsafe extern \"C\" {\n    static A: u8;\n}\n";
    assert!(unsafe_offences("src/sys/a.rs", declared).is_empty());
    let far = format!("// SAFETY: it is.\n{}unsafe impl Send for A {{}}\n", "\n".repeat(SAFETY_WITHIN));
    assert_eq!(unsafe_offences("src/kvm/a.rs", &far).len(), 1);
    assert_eq!(unsafe_offences("src/kvm/a.rs", "unsafe fn f() {}\n").len(), 1);

    let tree = Tree::read();
    assert!(tree.sources.iter().any(|file| !find_word(&file.code, "unsafe").is_empty()), "no unsafe found at all");
    report("unsafe", tree.sources.iter().flat_map(|file| unsafe_offences(&file.path, &file.source)).collect());
}

fn too_long(path: &str, source: &str) -> Option<String> {
    let lines = source.lines().count();
    (lines > LONGEST).then(|| format!("{path} has {lines} lines"))
}

#[test]
fn a_file_fits_in_the_head() {
    assert_eq!(too_long("a.rs", &"\n".repeat(LONGEST)), None);
    assert!(too_long("a.rs", &"\n".repeat(LONGEST + 1)).is_some());

    let tree = Tree::read();
    report("file lengths", tree.sources.iter().filter_map(|file| too_long(&file.path, &file.source)).collect());
}

/// A module folder that cargo would take for targets.
fn target_folder(path: &str) -> Option<String> {
    let mut folders = path.strip_prefix("src/")?.split('/').rev().skip(1);
    folders
        .find(|folder| TARGET_FOLDERS.contains(folder))
        .map(|folder| format!("{path} is in a folder called {folder}"))
}

#[test]
fn no_module_folder_is_taken_for_targets() {
    assert!(target_folder("src/vmm/tests/a.rs").is_some());
    assert!(target_folder("src/vmm/console/bin/a.rs").is_some());
    assert_eq!(target_folder("src/vmm/tests.rs"), None);
    assert_eq!(target_folder("tests/flows/rig.rs"), None);

    report("folders", Tree::read().sources.iter().filter_map(|file| target_folder(&file.path)).collect());
}

fn unexpected_at_top(name: &str) -> bool {
    !name.starts_with('.') && name != "target" && !TOP_LEVEL.contains(&name)
}

#[test]
fn the_top_of_the_repository_holds_what_it_should() {
    assert!(unexpected_at_top("notes.txt") && unexpected_at_top("xtask") && !unexpected_at_top(".ci"));

    let tree = Tree::read();
    report("top level", tree.top_level.iter().filter(|name| unexpected_at_top(name)).cloned().collect());
    let ignored = tree.text(".gitignore");
    assert!(ignored.lines().any(|line| line == "/target"), "target/ is not ignored");
}

fn manifest_offences(path: &str, manifest: &Manifest) -> Vec<String> {
    let mut complaints = Vec::new();
    if manifest.get("lints", "workspace") != Some("true") {
        complaints.push(format!("{path} does not inherit the workspace's lints"));
    }
    if manifest.get("package", "rust-version.workspace") != Some("true") {
        complaints.push(format!("{path} does not inherit rust-version"));
    }
    complaints
}

#[test]
fn every_crate_inherits_lints_and_rust_version() {
    let bad = Manifest::parse("[package]\nname = \"x\"\n[lints.rust]\nunsafe_code = \"allow\"\n");
    assert_eq!(manifest_offences("x", &bad).len(), 2);

    let tree = Tree::read();
    report("manifests", tree.manifests.iter().flat_map(|(_, path, m)| manifest_offences(path, m)).collect());
    let root = Manifest::parse(&tree.text("Cargo.toml"));
    assert_eq!(root.get("workspace", "exclude"), Some("[\"guest\", \"tools/fuzz\"]"));
    assert!(root.get("workspace.package", "rust-version").is_some());
    assert_eq!(root.get("workspace.lints.rust", "unsafe_code"), Some("\"deny\""));
}

#[test]
fn nothing_is_left_to_do() {
    let words = ["todo!", "unimplemented!", "dbg!"];
    let bad = code_only("fn f() { todo!() } // todo! is fine here\nfn g() { dbg!(1); }");
    assert_eq!(forbidden_words("f", &bad, &words), ["f: todo!@1", "f: dbg!@2"]);

    report("unfinished", Tree::read().sources.iter().flat_map(|f| forbidden_words(&f.path, &f.code, &words)).collect());
}

/// Lines with a path of somebody's machine.
fn private_paths(path: &str, text: &str) -> Vec<String> {
    // Put together here, so that this file does not complain of itself.
    let private = ["work", "root", "home"].map(|folder| format!("/{folder}/"));
    let bad = text.lines().enumerate().filter(|(_, line)| private.iter().any(|p| line.contains(p.as_str())));
    bad.map(|(i, line)| format!("{path}:{}: {line}", i + 1)).collect()
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    assert_eq!(private_paths("a", &format!("x\nsee /{}/me/notes", "home")).len(), 1);
    assert!(private_paths("a", "HOME=/root\nthe /work").is_empty());

    let tree = Tree::read();
    let texts = tree.texts.iter().map(|(path, text)| (path, text.as_str()));
    let all = texts.chain(tree.sources.iter().map(|file| (&file.path, file.source.as_str())));
    report("paths", all.flat_map(|(path, text)| private_paths(path, text)).collect());
}

/// Names and tests in a table of faults: lines like `Name: "group.test group.other",`.
fn faults(table: &str) -> Vec<(&str, Vec<&str>)> {
    fn entry(line: &str) -> Option<(&str, Vec<&str>)> {
        let (name, tests) = line.trim().strip_suffix("\",")?.split_once(": \"")?;
        name.chars().all(char::is_alphanumeric).then(|| (name, tests.split_whitespace().collect()))
    }
    table.lines().filter_map(entry).collect()
}

#[test]
fn every_fault_has_a_place_and_tests_that_there_are() {
    assert_eq!(faults("  /// What: \"x\",\n  A: \"b.c d.e\",\n"), [("A", vec!["b.c", "d.e"])]);

    let tree = Tree::read();
    let table = tree.in_folder("src/fault/").find(|file| file.path == "src/fault/table.rs").expect("a table of faults");
    let faults = faults(&table.source);
    assert!(faults.len() >= 30, "only {} faults", faults.len());
    let layers = ["src/irqchip/", "src/devices/", "src/vmm/"];
    let code: Vec<_> = layers.iter().flat_map(|folder| tree.in_folder(folder)).map(|file| &file.product_code).collect();
    let tests: Vec<_> = tree.in_folder("guest/suite/").map(|file| &file.source).collect();
    let mut complaints = Vec::new();
    for (name, named) in faults {
        let place = format!("Fault::{name}");
        if !code.iter().any(|code| !find_word(code, &place).is_empty()) {
            complaints.push(format!("{name} is nowhere in the code"));
        }
        let unknown = named.iter().filter(|test| !tests.iter().any(|s| s.contains(&format!("test!(\"{test}\""))));
        complaints.extend(unknown.map(|test| format!("{name} names {test:?}, which is no test")));
    }
    report("faults", complaints);
}

#[test]
fn the_code_map_has_every_crate() {
    let tree = Tree::read();
    let map = tree.text("docs/ARCHITECTURE.md");
    let missing = |path: &&String| {
        let folder = path.trim_end_matches("/Cargo.toml");
        !path.starts_with("Cargo") && !map.contains(&format!("`{folder}`"))
    };
    report("code map", tree.manifests.iter().map(|(_, path, _)| path).filter(missing).cloned().collect());
}
