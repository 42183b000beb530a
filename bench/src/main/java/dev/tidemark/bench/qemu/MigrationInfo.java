package dev.tidemark.bench.qemu;

import com.google.gson.JsonElement;
import com.google.gson.JsonObject;

/**
 * What {@code query-migrate} says at the source; a number that QEMU does not give (yet) is -1.
 *
 * @param status such as {@code active}; empty before a migration
 * @param totalMillis since the migration was asked for
 * @param setupMillis of that, until it began to send
 * @param downtimeMillis while the guest ran nowhere
 * @param bytes that were sent
 * @param zeroPages that were sent as such
 * @param normalPages that were sent with their contents
 * @param rounds how often dirty pages were asked for
 * @param error why it failed; empty if it did not
 */
public record MigrationInfo(
    String status,
    long totalMillis,
    long setupMillis,
    long downtimeMillis,
    long bytes,
    long zeroPages,
    long normalPages,
    long rounds,
    String error) {

  static MigrationInfo of(JsonObject info) {
    JsonObject ram = info.has("ram") ? info.getAsJsonObject("ram") : new JsonObject();
    return new MigrationInfo(
        text(info, "status"),
        number(info, "total-time"),
        number(info, "setup-time"),
        number(info, "downtime"),
        number(ram, "transferred"),
        number(ram, "duplicate"),
        number(ram, "normal"),
        number(ram, "dirty-sync-count"),
        text(info, "error-desc"));
  }

  private static long number(JsonObject of, String name) {
    JsonElement value = of.get(name);
    return value == null ? -1 : value.getAsLong();
  }

  private static String text(JsonObject of, String name) {
    JsonElement value = of.get(name);
    return value == null ? "" : value.getAsString();
  }

  boolean isCompleted() {
    return status.equals("completed");
  }

  boolean isFailed() {
    return status.equals("failed") || status.equals("cancelled");
  }
}
