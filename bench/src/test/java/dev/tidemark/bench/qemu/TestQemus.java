package dev.tidemark.bench.qemu;

import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assumptions.abort;

/** The QEMU that tests run against. */
public final class TestQemus {
  private TestQemus() {}

  /** The newest; ends the test where there is none: as a failure where there must be one. */
  public static QemuBinary newest() {
    return QemuBinary.newest()
        .orElseGet(
            () -> {
              assertNotEquals(
                  "true", System.getenv("TIDEMARK_REQUIRE_QEMUS"), QemuBinary.missing());
              return abort(QemuBinary.missing());
            });
  }
}
