package dev.tidemark.bench.cli;

import com.google.gson.Gson;
import com.google.gson.GsonBuilder;
import com.google.gson.JsonObject;

/** The one way this command line writes and reads JSON: compact, one object a line. */
final class Json {
  private static final Gson GSON =
      new GsonBuilder().disableHtmlEscaping().serializeNulls().create();

  private Json() {}

  /** One line; characters that a terminal would obey are escaped. */
  static String of(Object value) {
    return Text.escaped(GSON.toJson(value));
  }

  static JsonObject object(String line) {
    return GSON.fromJson(line, JsonObject.class);
  }

  static <T> T read(String line, Class<T> type) {
    return GSON.fromJson(line, type);
  }
}
