//! What is tested with Asterisk's prompts, and of the repository as a whole. What needs an Asterisk that runs is in `end_to_end`.

mod detection;
mod docs;
mod layers;
mod package;
mod published;
mod vocabulary;
