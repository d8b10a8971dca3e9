//! `cargo xtask demo`: the stock Debian kernel on user-space interrupt controllers, shown live.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::assets::Assets;
use crate::lab::{self, Copy, Job};
use crate::report::Report;
use crate::{failure, hardware, quote, workspace};

/// The guest takes 15 s in the emulated host on two idle cores.
const LIMIT: Duration = Duration::from_secs(600);

/// Boot Debian's stock cloud kernel, show its /proc/interrupts, power off.
#[derive(Args)]
pub struct Options {
    /// Stay in the guest's shell; the guest powers off when you leave it
    #[arg(long)]
    shell: bool,
    /// Virtual CPUs
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    cpus: u32,
}

/// Runs the demo; exit code 0 only when the guest printed its report and powered off by itself.
///
/// # Errors
/// Exit code 4 when something needed is missing; 1 when the program does not build.
pub fn main(options: &Options) -> Result<u8> {
    let obstacle = hardware::obstacle();
    let (kernel, initrd) = {
        let assets = Assets::open()?;
        if obstacle.is_some() {
            assets.qemu()?;
        }
        (assets.kernel()?, assets.guest_initrd()?)
    };
    eprintln!("xtask: building tophalf");
    let program = workspace::build_program("tophalf", "tophalf")?;

    let words = if options.shell { "th.report th.shell" } else { "th.report" };
    let arguments = |program: &str, kernel: &str, initrd: &str| -> Vec<String> {
        let cpus = options.cpus.to_string();
        let cmdline = format!("console=ttyS0 {words}");
        let tail = ["--initrd", initrd, "--cpus", &cpus, "--memory", "512M", "--cmdline", &cmdline];
        [program, "run", kernel].into_iter().chain(tail).map(str::to_owned).collect()
    };
    let console = Console::default();
    let started = Instant::now();
    let (code, place) = if let Some(obstacle) = obstacle {
        eprintln!("xtask: no hardware KVM here ({obstacle}): running in an emulated host, which is much slower");
        let job = Job {
            command: arguments("tophalf", "/guest/vmlinuz", "/guest/initrd"),
            files: vec![
                Copy { host: program, guest: "/bin/tophalf".to_owned() },
                Copy { host: kernel.image, guest: "/guest/vmlinuz".to_owned() },
                Copy { host: initrd, guest: "/guest/initrd".to_owned() },
            ],
            terminal: options.shell && lab::interactive(),
            input: options.shell,
            timeout: (!options.shell).then_some(LIMIT),
            stdout: Box::new(console.clone()),
            ..Job::default()
        };
        announce(&job.command);
        (i32::from(lab::run(job)?.code), "in the emulated host")
    } else {
        let paths = [&program, &kernel.image, &initrd].map(|path| path.display().to_string());
        let command = arguments(&paths[0], &paths[1], &paths[2]);
        announce(&command);
        (direct(&command, options.shell, console.clone())?, "directly on this host's KVM")
    };
    let report = Report::parse(&console.text());
    Ok(verdict(options, &report, code, place, started.elapsed()))
}

fn announce(command: &[String]) {
    eprintln!("xtask: {}", quote::line(command));
}

/// Runs the command here, its console live and kept.
fn direct(command: &[String], input: bool, mut console: Console) -> Result<i32> {
    let Some((program, arguments)) = command.split_first() else { bail!("no command") };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(if input { Stdio::inherit() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    if let Some(mut stdout) = child.stdout.take() {
        io::copy(&mut stdout, &mut console).context("cannot show the guest's console")?;
    }
    let status = child.wait().context("cannot wait for tophalf")?;
    Ok(status.code().unwrap_or(-1))
}

/// Prints what happened and decides the exit code.
fn verdict(options: &Options, report: &Report, code: i32, place: &str, took: Duration) -> u8 {
    let complete = report.done && report.section("interrupts").is_some();
    let chips = report.chips().into_iter().collect::<Vec<_>>().join(", ");
    let unknown = "not reported";
    println!();
    println!("vCPUs:          {} asked for, {} online", options.cpus, report.first_line("cpus").unwrap_or(unknown));
    println!("boot to init:   {} s by the guest's clock", report.first_line("uptime").unwrap_or(unknown));
    println!("interrupt chips: {}", if chips.is_empty() { unknown } else { &chips });
    println!("ran:            {place}, {:.0} s in all", took.as_secs_f64());
    println!("exit code:      {code}");
    if complete && code == 0 {
        println!("The guest printed its report and powered off.");
        return 0;
    }
    if complete {
        println!("The guest printed its report, but did not power off cleanly.");
    } else {
        println!("The guest did not print its report.");
    }
    match u8::try_from(code) {
        Ok(failure::HOST) => failure::HOST,
        _ => 1,
    }
}

/// Passes the guest's console on to stdout and keeps it.
#[derive(Clone, Default)]
struct Console {
    kept: Arc<Mutex<Vec<u8>>>,
}

impl Console {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = io::stdout().write(bytes)?;
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush()
    }
}

#[cfg(test)]
mod tests;
