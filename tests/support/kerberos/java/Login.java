// Hadoop's own client, which logs in from the ccache that KRB5CCNAME names.

import org.apache.hadoop.security.UserGroupInformation;
public class Login {
    public static void main(String[] none) throws Exception {
        var settings = new org.apache.hadoop.conf.Configuration();
        settings.set("hadoop.security.authentication", "kerberos");
        UserGroupInformation.setConfiguration(settings);
        System.out.println(UserGroupInformation.getLoginUser());
    }
}
