//! [`Events`]: parses server-sent events, as in the HTML standard.

/// Reads events line by line.
#[derive(Debug, Default)]
pub(crate) struct Events {
    name: String,
    data: String,
}

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Empty if the Server gives none.
    pub(crate) name: String,
    pub(crate) data: String,
}

impl Events {
    /// Takes a line without its end; returns the event that it completes. Comments, other fields and events without
    /// data are ignored.
    pub(crate) fn line(&mut self, line: &str) -> Option<Event> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() {
            let Self { name, mut data } = std::mem::take(self);
            // The end of the last line of data.
            return data.pop().map(|_| Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_as_the_standard_says() {
        let text = ": a comment\n\nevent: aggregate\ndata: {\"a\":\ndata:1}\nid: 7\n\ndata: x\r\n\r\nevent: gone\n\n\
                    data\n\nevent:error\ndata: never ended";
        let mut events = Events::default();
        let found: Vec<_> = text.split('\n').filter_map(|line| events.line(line)).collect();
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        // The name of one event does not carry over to the next.
        assert_eq!(found, [event("aggregate", "{\"a\":\n1}"), event("", "x"), event("", "")]);
    }
}
