package dev.tidemark.engine.stream;

/**
 * Loads one full section at the destination, such as a device's state or a vCPU's registers. The
 * stream says of a section only its name, instance and version: so the reader needs a handler for
 * each that may come, and takes one that is missing for an error.
 *
 * @param name the section's name, 1 to 255 bytes of UTF-8
 * @param instance tells sections of one name apart
 * @param version the one version that can be loaded
 * @param loader reads exactly the section's data
 */
public record SectionHandler(String name, int instance, int version, Loader loader) {
  /** Reads a section's data. */
  @FunctionalInterface
  public interface Loader {
    /**
     * Reads exactly the section's data. Whatever it throws fails the load, and the source is told
     * so.
     *
     * @param input the stream, at the first byte of the data; not to be kept
     */
    void load(SectionInput input);
  }

  /** Checks the name. */
  public SectionHandler {
    StreamFormat.checkName(name);
  }

  /** A section to read and forget. */
  static SectionHandler skipping(String name, int version, long bytes) {
    return new SectionHandler(name, 0, version, input -> input.skip(bytes));
  }
}
