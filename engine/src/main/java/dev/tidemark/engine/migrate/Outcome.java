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
   * The guest runs nowhere: the destination was told to go, could not run it, and says so. Its
   * memory and state are here still, with the guest stopped and its devices left. This side does
   * not run it, because devices may have worked at the destination by then: whoever made sure that
   * they did no harm may resume it here.
   */
  NOWHERE,
  /**
   * The connection broke between go and its answer: the destination may run the guest, so the
   * source does not. A person or an orchestrator has to look, and may then resume one of the two.
   */
  UNKNOWN
}
