package dev.tidemark.engine.migrate;

/** How a migration ended, which says where the guest is. */
public enum Outcome {
  /** The guest is at the destination; the source must never run it again. */
  COMPLETED,
  /** The guest is at the source, running if it ran before, with tracking off. */
  FAILED,
  /** As {@link #FAILED}, because somebody asked for it. */
  CANCELLED,
  /**
   * The connection broke between go and its answer: the destination may run the guest, so the
   * source does not. A person or an orchestrator has to look, and may then resume one of the two.
   */
  UNKNOWN
}
