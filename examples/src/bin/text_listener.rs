//! A front-end of your own: lines `NAME VALUE [KEY=TEXT …]` over TCP become events of an Agent in this process. Listens on
//! 127.0.0.1:8125; first it sends itself two lines, and prints what comes of them; with `--exit` it then ends.
use std::error::Error;
use taba_agent::frontend::{Decoder, LineError, Observation};
use taba_agent::{Agent, AgentHandle};
use taba_core::{ClientId, TabName};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

struct TextLines;

impl Decoder for TextLines {
    fn decode(&self, line: &[u8]) -> Option<Result<Observation, LineError>> {
        Some(std::str::from_utf8(line).map_err(LineError::malformed).and_then(read))
    }
}

fn read(line: &str) -> Result<Observation, LineError> {
    let mut words = line.split_whitespace();
    let mut name = TabName::builder(words.next().unwrap_or_default());
    let value: f64 = words.next().unwrap_or_default().parse().map_err(LineError::value)?;
    for label in words {
        let (key, text) = label.split_once('=').ok_or_else(|| LineError::malformed("a label is KEY=TEXT"))?;
        name = name.label(key, text);
    }
    Ok(Observation::of(name.build()?, value))
}

async fn serve(mut stream: TcpStream, agent: AgentHandle) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (client, mut line) = (ClientId::new("text")?, Vec::new());
    let (read, mut write) = stream.split();
    let mut read = BufReader::new(read);
    while (&mut read).take(64 << 10).read_until(b'\n', &mut line).await? > 0 {
        let outcome = agent.record(&TextLines, &std::mem::take(&mut line), client.clone(), None).await;
        let answer = outcome.map_or_else(|error| error.to_string(), |outcome| format!("{outcome:?}"));
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let handlers = taba_handlers::standard().build()?;
    let agent = Agent::builder().listen("127.0.0.1:0".parse()?).memory_spool().handlers(handlers);
    let agent = agent.build()?.start().await?;
    let is_test = std::env::args().any(|arg| arg == "--exit");
    let listener = TcpListener::bind(if is_test { "127.0.0.1:0" } else { "127.0.0.1:8125" }).await?;
    let mut test = TcpStream::connect(listener.local_addr()?).await?;
    test.write_all("delay 12.5 city=Zürich\ndelay late\n".as_bytes()).await?;
    test.shutdown().await?;
    serve(listener.accept().await?.0, agent.handle()).await?;
    tokio::io::copy(&mut test, &mut tokio::io::stdout()).await?;
    if is_test {
        return Ok(());
    }
    loop {
        tokio::spawn(serve(listener.accept().await?.0, agent.handle()));
    }
}
