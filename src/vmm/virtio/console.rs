//! `--console`.

use std::str::FromStr;

use crate::{Error, SerialTarget};

/// A port of the virtio console as the command line gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// What it is connected to.
    pub target: SerialTarget,
    /// Its name, for a port that is no console but a program's.
    pub name: Option<String>,
}

impl FromStr for ConsoleConfig {
    type Err = Error;

    /// What the serial port can be connected to, and behind a comma `name=`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let (target, name) = match text.split_once(",name=") {
            Some((target, name)) => (target, Some(name)),
            None => (text, None),
        };
        if name.is_some_and(|name| name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'))
        {
            return Err(Error::Usage(format!(
                "--console {text:?}: a port's name has letters, digits and signs, but no slash; give --console TARGET,name=NAME"
            )));
        }
        let target = SerialTarget::parse(target, "--console")?;
        Ok(Self { target, name: name.map(str::to_owned) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_a_target_and_a_port_has_a_name() {
        let port = |text: &str| text.parse::<ConsoleConfig>().map_err(|e| e.to_string());
        assert_eq!(port("pty"), Ok(ConsoleConfig { target: SerialTarget::Pty, name: None }));
        let file = SerialTarget::File("/tmp/a".into());
        assert_eq!(port("file:/tmp/a,name=log.0"), Ok(ConsoleConfig { target: file, name: Some("log.0".into()) }));
        for (text, words) in [
            ("", "give --console stdio, file:PATH"),
            ("tty", "give --console stdio, file:PATH"),
            ("file:", "--console file: has no path"),
            ("null,name=", "a port's name has"),
            ("null,name=a/b", "a port's name has"),
            ("null,name=a b", "a port's name has"),
        ] {
            let said = port(text).expect_err(text);
            assert!(said.contains(words) && !said.contains('\n'), "{said}");
        }
    }
}
