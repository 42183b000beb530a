package dev.tidemark.engine.migrate;

/**
 * The guest runs here, and whether the source was told so.
 *
 * @param told whether the answer was written; if not, the source ends as {@link Outcome#UNKNOWN}
 * @param problem why it could not be told, in one line; empty if it was
 */
public record IncomingResult(boolean told, String problem) {}
