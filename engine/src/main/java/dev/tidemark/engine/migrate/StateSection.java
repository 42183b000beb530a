package dev.tidemark.engine.migrate;

import dev.tidemark.engine.stream.SectionOutput;
import dev.tidemark.engine.stream.StreamWriter;
import java.util.Objects;
import java.util.function.Consumer;

/**
 * State of the guest that is not memory, such as a vCPU's registers or a device: saved once the
 * guest is stopped and before the last sync, because saving may still write guest memory.
 *
 * @param name the section's name, 1 to 255 bytes of UTF-8; the destination needs a handler for it
 * @param instance tells sections of one name apart
 * @param version of the data
 * @param save writes the data
 */
public record StateSection(String name, int instance, int version, Consumer<SectionOutput> save) {
  /** Checks the name, and that there is something to call. */
  public StateSection {
    StreamWriter.checkSectionName(name);
    Objects.requireNonNull(save, "save");
  }
}
