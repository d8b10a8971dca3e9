//! `tophalf explain`: a trace in words, or for a viewer.

mod picture;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use vmm::Error;
use vmm::trace::explain::{Question, explain as answer, lives};
use vmm::trace::export::{self, Format};
use vmm::trace::{Recording, Story};

use super::outcome;

/// What `tophalf explain` takes.
#[derive(Debug, Args)]
pub struct ExplainArguments {
    /// A trace that 'tophalf run --trace FILE' has written, in the native format
    file: PathBuf,
    /// Tell the life of the interrupt with this number, or with a d before it of that deferred item
    #[arg(long, value_name = "N", conflicts_with_all = ["slowest", "lost"])]
    id: Option<String>,
    /// Tell the lives of the N interrupts that took longest from assertion to injection
    #[arg(long, value_name = "N", conflicts_with = "lost")]
    slowest: Option<usize>,
    /// Tell the lives of those that did not come to their end, and where they stopped
    #[arg(long)]
    lost: bool,
    /// Draw the lives that --id or --slowest asks for instead, as an SVG picture
    #[arg(long, value_name = "FILE", conflicts_with_all = ["lost", "export"])]
    picture: Option<PathBuf>,
    /// Write it for a viewer instead: FILE.json for Chrome's, FILE.pftrace for Perfetto
    #[arg(long, value_name = "FILE", conflicts_with_all = ["id", "slowest", "lost"])]
    export: Option<PathBuf>,
}

/// Tells it; exit code 0, or 2 when the trace or a number is no good.
pub fn explain(arguments: &ExplainArguments) -> ExitCode {
    match text(arguments) {
        Ok(text) => {
            outcome::say(&text);
            ExitCode::SUCCESS
        }
        Err(e) => outcome::of_error(&e),
    }
}

fn text(arguments: &ExplainArguments) -> Result<String, Error> {
    let question = match &arguments.id {
        Some(id) => by_id(id)?,
        None if arguments.lost => Question::Lost,
        None => arguments.slowest.map_or(Question::Summary, Question::Slowest),
    };
    if arguments.picture.is_some() && matches!(question, Question::Summary) {
        return Err(Error::Usage(
            "--picture does not know whose life to draw: give --id or --slowest with it".to_owned(),
        ));
    }
    let story = Story::of(&Recording::read(&arguments.file)?);
    if let Some(path) = &arguments.picture {
        let lives = lives(&story, question).map_err(Error::Usage)?;
        return write(path, &picture::draw(&lives)).map(|()| String::new());
    }
    let Some(path) = &arguments.export else { return answer(&story, question).map_err(Error::Usage) };
    let format = Format::of(path);
    if format == Format::Native {
        let name = path.display();
        return Err(Error::Usage(format!("{name} has no format: give --export a name with .json or .pftrace")));
    }
    export::write(&story, path, format)?;
    Ok(String::new())
}

fn write(path: &Path, picture: &str) -> Result<(), Error> {
    std::fs::write(path, picture)
        .map_err(|e| Error::Usage(format!("{} can't be written: {e}; give another file", path.display())))
}

fn by_id(text: &str) -> Result<Question, Error> {
    let (digits, is_item) = text.strip_prefix('d').map_or((text, false), |digits| (digits, true));
    match digits.parse() {
        Ok(id) if is_item => Ok(Question::Item(id)),
        Ok(id) => Ok(Question::Interrupt(id)),
        Err(_) => Err(Error::Usage(format!("{text:?} is no number of an interrupt; give --id such as 17, or d17"))),
    }
}
