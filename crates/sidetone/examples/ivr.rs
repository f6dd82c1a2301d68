//! A menu: 1 plays the news, 2 asks for an account number and reads it back in beeps, # hangs up. The caller may type or speak
//! into every prompt.
//!
//!     cargo run -p sidetone --example ivr
//!     cargo run --release -- call 127.0.0.1:9092 --dtmf 2@1,1@3,2@3.5,#@4,#@9 --seconds 12 --record heard.wav
#![allow(clippy::print_stdout, reason = "this is a program for a terminal")]

use std::{error::Error, time::Duration};

use sidetone::{
    Call, Clip, ClipError, PlayError, Server,
    ivr::{Interrupt, InterruptedBy, Ivr},
};
use sidetone_audio::tone;

const ANYTHING: fn() -> Interrupt = || Interrupt::KEYS | Interrupt::SPEECH;

/// Everything that the menu plays. Real ones come from `Clip::open("menu.wav")`.
#[derive(Clone)]
pub(crate) struct Sounds {
    pub(crate) menu: Clip,
    pub(crate) news: Clip,
    pub(crate) beep: Clip,
}

impl Sounds {
    pub(crate) fn new() -> Result<Self, ClipError> {
        let beep = (0..1_600).map(|at| {
            if at < 800 && at / 10 % 2 == 0 {
                6_000
            } else {
                0
            }
        });
        Ok(Self {
            menu: Clip::from_samples(8_000, tone::greeting(8_000))?,
            news: Clip::from_samples(8_000, tone::caller_voice(8_000, Duration::from_secs(5), 1))?,
            beep: Clip::from_samples(8_000, beep.collect::<Vec<i16>>())?,
        })
    }
}

pub(crate) async fn menu(call: Call, sounds: Sounds) -> Result<(), PlayError> {
    let mut ivr = Ivr::new(call);
    loop {
        let menu = ivr.prompt(&sounds.menu).interrupted_by(ANYTHING()).await?;
        if menu.interrupted_by == Some(InterruptedBy::Speech) {
            println!("{}: spoke after {:?}", ivr.call().id(), menu.heard.heard);
        }
        let choice = ivr.digits(1).await?.digits;
        match choice.as_str() {
            "1" => {
                ivr.prompt(&sounds.news).interrupted_by(ANYTHING()).await?;
            }
            "2" => {
                let account = ivr.digits(8).end('#').await?.digits;
                println!("{}: account {account}", ivr.call().id());
                let beeps = account.chars().filter_map(|digit| digit.to_digit(10)).sum();
                for _ in 0..beeps {
                    ivr.prompt(&sounds.beep).await?;
                }
            }
            "#" => return Ok(()),
            _ => {}
        }
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let sounds = Sounds::new()?;
    let server = Server::builder().bind("127.0.0.1:9092").await?;
    server.serve(move |call| menu(call, sounds.clone())).await?;
    Ok(())
}
