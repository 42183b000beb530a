package dev.tidemark.engine.stream;

/**
 * Loads one iterable section at the destination: state that comes in pieces between the rounds of
 * RAM, such as a device's. The pieces come in order, and none before the start or after the end;
 * the reader checks that. Whatever a method throws fails the load, and the source is told so.
 */
public interface IterableHandler {
  /** The section's name, 1 to 255 bytes of UTF-8. */
  String name();

  /** Tells sections of one name apart. */
  int instance();

  /** The one version that can be loaded. */
  int version();

  /** The section starts; {@link #load} of the first piece follows. */
  void start();

  /**
   * Reads exactly one piece's data.
   *
   * @param input the stream, at the first byte of the data; not to be kept
   */
  void load(SectionInput input);

  /** The last piece was loaded: checks that all is there. */
  void end();
}
